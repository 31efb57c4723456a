package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// route is one HTTP route. Its path may hold variables, "{name}", each a whole segment, with a ":verb" behind the last.
type route struct {
	method string
	path   string
	about  string
	query  []string // parameters it takes
	public bool     // needs no credentials
	serve  func(w http.ResponseWriter, r *http.Request, vars map[string]string)
}

// The routes that the .gateway.yaml beside the .proto declares are served by the gateway, the others here.
func (g *gateway) routes() []route {
	const namespace = "/v1/namespaces/{namespace}"
	subscribe := []string{"keep_alive", "ack"}
	page := []string{"page_size", "page_token"}
	return []route{
		{method: http.MethodGet, path: "/", about: "this list", public: true, serve: g.index},
		{method: http.MethodGet, path: "/healthz", about: "200 while the process lives", public: true, serve: g.healthz},
		{
			method: http.MethodGet, path: "/readyz", about: "200 while every backend answers, else 503 and which do not",
			public: true, serve: g.readyz,
		},
		{method: http.MethodGet, path: "/v1/namespaces", about: "list the namespaces"},
		{method: http.MethodPost, path: namespace + "/identities", about: "register an identity"},
		{method: http.MethodPost, path: namespace + "/identities/{identity}:heartbeat", about: "renew a lease"},
		{
			method: http.MethodDelete, path: namespace + "/identities/{identity}", query: []string{"revision"},
			about: "unregister an identity",
		},
		{
			method: http.MethodGet, path: namespace + "/identities", query: append(
				page, "include_metadata", "consistency", "min_revision", "sort_by", "count_by", "fields", "count_only", "max_groups",
			),
			about: "list the identities",
		},
		{method: http.MethodPost, path: namespace + "/identities:enumerate", about: "find identities by a filter"},
		{
			method: http.MethodPost, path: namespace + "/identities:enumerateStream", serve: g.enumerateStream,
			about: "the same, all of them, page by page in lines",
		},
		{
			method: http.MethodPost, path: namespace + "/identities:explain",
			about: "how a filter is understood, what each of its conditions matches, and what nearly matches",
		},
		{
			method: http.MethodGet, path: namespace + "/identities:watch", serve: g.watch,
			query: []string{"filter", "include_metadata", "resume_token", "omit_snapshot"},
			about: "who matches a filter (?filter={...}), and who joins, changes and leaves, as server-sent events",
		},
		{method: http.MethodPost, path: namespace + "/identities:multicast", about: "deliver a message to all that match a filter"},
		{
			method: http.MethodPost, path: namespace + "/identities:multicastStream", serve: g.multicastStream,
			about: "the same, answered line by line as outcomes become known",
		},
		{
			method: http.MethodGet, path: namespace + "/multicasts", query: page,
			about: "list the multicasts that are kept, latest first",
		},
		{
			method: http.MethodGet, path: namespace + "/multicasts/{multicast_id}", query: append(page, "report"),
			about: "what has become of a multicast by now",
		},
		{
			method: http.MethodPost, path: namespace + "/multicasts/{multicast_id}:cancel",
			about: "withdraw what is stored and not delivered",
		},
		{
			method: http.MethodGet, path: namespace + "/identities/{identity}:subscribe", query: subscribe,
			about: "receive the messages of one identity as server-sent events", serve: g.subscribe,
		},
		{
			method: http.MethodGet, path: namespace + "/messages", query: append(subscribe, "identity"),
			about: "receive the messages of any number of identities (?identity=a&identity=b) as server-sent events",
			serve: g.subscribe,
		},
		{
			method: http.MethodPost, path: namespace + "/messages:ack",
			about: "acknowledge messages of a stream with ?ack=manual", serve: g.ack,
		},
	}
}

// match tells whether an escaped path is the route's, and what its variables are.
func (t *route) match(escaped string) (vars map[string]string, ok bool) {
	want, have := strings.Split(t.path, "/"), strings.Split(escaped, "/")
	if len(want) != len(have) {
		return nil, false
	}
	vars = make(map[string]string)
	for i, w := range want {
		h := have[i]
		name, isVar := strings.CutPrefix(w, "{")
		if !isVar {
			if w != h {
				return nil, false
			}
			continue
		}
		name, verb, _ := strings.Cut(name, "}")
		h, ok = strings.CutSuffix(h, verb)
		if !ok || verb != "" && h == "" {
			return nil, false
		}
		unescaped, err := url.PathUnescape(h)
		if err != nil {
			return nil, false
		}
		vars[name] = unescaped
	}
	return vars, true
}

// find returns the route of a request, or the error that says what would have been right.
func (g *gateway) find(r *http.Request) (*route, map[string]string, error) {
	var allowed []string
	for i := range g.table {
		t := &g.table[i]
		vars, ok := t.match(r.URL.EscapedPath())
		if !ok {
			continue
		}
		for name, value := range vars {
			if !utf8.ValidString(value) {
				return nil, nil, invalid(name, "is not valid UTF-8")
			}
		}
		probe := t.method == http.MethodGet && t.serve != nil && !strings.HasPrefix(t.path, "/v1/")
		if r.Method == t.method || probe && r.Method == http.MethodHead {
			err := t.checkQuery(r.URL.RawQuery)
			return t, vars, err
		}
		allowed = append(allowed, t.method)
		if probe {
			allowed = append(allowed, http.MethodHead)
		}
	}
	if len(allowed) > 0 {
		slices.Sort(allowed)
		return nil, nil, &methodError{allowed: strings.Join(slices.Compact(allowed), ", ")}
	}
	return nil, nil, status.Errorf(codes.NotFound, "there is no %s; GET / lists the routes", shorten(r.URL.EscapedPath()))
}

// checkQuery refuses a query that cannot be read, and parameters that the route would have to pass over.
func (t *route) checkQuery(raw string) error {
	given, err := url.ParseQuery(raw)
	if err != nil {
		return invalid("query", "cannot be read: "+err.Error())
	}
	for name, values := range given {
		switch {
		case !utf8.ValidString(name):
			return invalid("query", "has a parameter whose name is not valid UTF-8")
		case slices.Contains(t.query, name):
			if slices.ContainsFunc(values, func(v string) bool { return !utf8.ValidString(v) }) {
				return invalid(name, "is not valid UTF-8")
			}
		case len(t.query) == 0:
			return invalid("query", fmt.Sprintf("%q is not known: this route takes no parameters", shorten(name)))
		default:
			return invalid("query", fmt.Sprintf("%q is not known; legal parameters: %s", shorten(name), strings.Join(t.query, ", ")))
		}
	}
	return nil
}

// methodError is a 405.
type methodError struct{ allowed string }

// Error says what is allowed.
func (e *methodError) Error() string { return "this route takes " + e.allowed }

func (g *gateway) index(w http.ResponseWriter, _ *http.Request, _ map[string]string) {
	type line struct {
		Method string `json:"method"`
		Path   string `json:"path"`
		About  string `json:"about"`
	}
	var lines []line
	for i := range g.table {
		lines = append(lines, line{g.table[i].method, g.table[i].path, g.table[i].about})
	}
	writeJSON(w, http.StatusOK, map[string]any{"service": "prism multicast registry", "routes": lines})
}

func (g *gateway) healthz(w http.ResponseWriter, _ *http.Request, _ map[string]string) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	_ = out.Encode(body) //nolint:errchkjson // bodies are our own; a client that is gone does not miss it
}
