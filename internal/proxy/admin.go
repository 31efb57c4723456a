package proxy

import (
	"errors"
	"net/http"
	"net/http/pprof" // what it adds to the default mux is served by nobody
)

// Admin returns what operators ask of a server: metrics, health, profiles. It asks nobody who they are: whoever reaches it can
// read profiles, and the names of namespaces, and slow the process down.
func (s *Server) Admin() http.Handler {
	g := &gateway{server: s, foreign: http.NewCrossOriginProtection()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"service": "prism multicast registry, for operators", "routes": []string{
			"/metrics", "/healthz", "/readyz", "/buildinfo", "/debug/pprof/",
		}})
	})
	mux.Handle("GET /metrics", s.metrics.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { g.healthz(w, r, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { g.readyz(w, r, nil) })
	mux.HandleFunc("GET /buildinfo", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.metrics.Build())
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := errors.Join(g.checkOrigin(r), g.checkName(r)); err != nil {
			http.Error(w, "this page may not ask: "+err.Error(), http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}
