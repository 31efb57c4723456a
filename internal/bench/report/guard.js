// Runs before everything else: what goes wrong later is told on <html data-errors>.
(() => {
  "use strict";
  const note = (text) => {
    const data = document.documentElement.dataset;
    data.errors = (data.errors ? data.errors + "; " : "") + text;
  };
  addEventListener("error", (e) => note(e.message));
  addEventListener("unhandledrejection", (e) => note(String(e.reason)));
  addEventListener("securitypolicyviolation", (e) => note("policy: " + e.violatedDirective + " " + e.blockedURI));
})();
