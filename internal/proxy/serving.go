package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/internal/metrics"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// serving is what a server serves at one moment. It is replaced as a whole and never changed.
type serving struct {
	authenticator *auth.Authenticator // nil: nobody is asked
	namespaces    map[string]*served
	names         []string // in order
	maxValues     int      // of the JSON of a body
}

// served is a namespace that is served, and the calls in it.
type served struct {
	Namespace

	given *auth.Policy // the policy that it came with, which may be nil
	drain *drainer
}

// errMoved ends a stream that its namespace does not wait for any longer.
var errMoved = status.Error(codes.Unavailable,
	"the namespace is being changed; open the stream again, and repeat a multicast under its idempotency key")

// newServing returns what is to be served from now on. Of what was served before, a namespace with the same coordinator and the
// same policy keeps its streams.
func (s *Server) newServing(namespaces []Namespace, authenticator *auth.Authenticator, before *serving) (*serving, error) {
	now := &serving{authenticator: authenticator, namespaces: make(map[string]*served, len(namespaces)), maxValues: minValues}
	for _, n := range namespaces {
		c := n.Coordinator.Config()
		if _, twice := now.namespaces[c.Namespace]; twice {
			return nil, fmt.Errorf("namespace %q is given twice", c.Namespace)
		}
		as := &served{Namespace: n, given: n.Policy}
		was := before.namespaces[c.Namespace]
		same := was != nil && was.given == as.given && (before.authenticator == nil) == (authenticator == nil)
		switch {
		case same:
			as.Policy = was.Policy
		case n.Policy != nil:
		case authenticator == nil:
			as.Policy = auth.AllowAll(c.Namespace)
		default: // which says its name, as others do
			as.Policy, _ = auth.Compile(auth.PolicyConfig{Namespace: c.Namespace}) // no rule is wrong
		}
		if same && was.Coordinator == n.Coordinator {
			as.drain = was.drain
		} else {
			as.drain = s.drain.child()
		}
		now.namespaces[c.Namespace] = as
		now.names = append(now.names, c.Namespace)
		now.maxValues = max(now.maxValues, c.MaxMetadata/8) // a value of metadata counts 12 bytes at least, and a field 16
	}
	if len(now.names) == 0 {
		return nil, errors.New("there is no namespace to serve: give at least one")
	}
	slices.Sort(now.names)
	return now, nil
}

// sources are what metrics ask about.
func (n *serving) sources() map[string]metrics.Source {
	sources := make(map[string]metrics.Source, len(n.namespaces))
	for name, served := range n.namespaces {
		sources[name] = served.Coordinator
	}
	return sources
}

// Reconfigure serves other namespaces from now on, and asks another authenticator, which may be nil, who is calling. What is
// wrong with them changes nothing. A namespace that comes with the coordinator and the policy that it had keeps its calls and
// streams, whatever else of it is new. In one that is gone, or has another coordinator or policy, calls finish, and streams are
// told to be opened again, as when the server drains; streams whose credentials are not accepted any more are ended. It waits
// for them until ctx ends; then what is left of the streams is cut off. The channel is closed when no call uses a coordinator
// that Reconfigure was not given. It must not be called concurrently. While the server drains it fails.
func (s *Server) Reconfigure(
	ctx context.Context, namespaces []Namespace, authenticator *auth.Authenticator,
) (left <-chan struct{}, err error) {
	select {
	case <-s.drain.leaving:
		return nil, errLeft
	default:
	}
	before := s.serving.Load()
	for _, n := range namespaces {
		if need := messageBytes(n); need > s.maxMessage {
			return nil, fmt.Errorf("namespace %q: max_payload is %d bytes, and this server takes messages for %d at most since its "+
				"start: restart it", n.Coordinator.Config().Namespace, n.Coordinator.Config().MaxPayload, s.maxMessage-messageOverhead)
		}
	}
	now, err := s.newServing(namespaces, authenticator, before)
	if err != nil {
		return nil, err
	}
	var leaving []*drainer
	for name, n := range before.namespaces {
		if after := now.namespaces[name]; after == nil || after.drain != n.drain {
			leaving = append(leaving, n.drain)
		}
	}
	s.metrics.Serve(now.sources())
	s.serving.Store(now)
	for _, d := range leaving {
		d.leave()
	}
	if before.authenticator != authenticator {
		s.open.recheck(ctx, authenticator)
	}
	for _, d := range leaving {
		select {
		case <-d.empty:
		case <-ctx.Done():
			s.log.LogAttrs(ctx, slog.LevelWarn, "streams of a namespace that was changed or removed are cut off")
			d.cut()
		}
	}
	s.metrics.Forget(slices.Collect(maps.Keys(now.namespaces)))
	gone := make(chan struct{})
	s.streams.Go(func() { // as long as those whose calls it waits for
		defer close(gone)
		for _, d := range leaving {
			<-d.empty
			s.drain.forget(d)
		}
	})
	return gone, nil
}

// Reloaded notes in the metrics that a configuration was loaded, and whether it could be used.
func (s *Server) Reloaded(ok bool) { s.metrics.Reloaded(ok) }

// whyClosing tells a stream why it is to end.
func (s *Server) whyClosing() string {
	select {
	case <-s.drain.leaving:
		return "the server is shutting down"
	default:
		return "the namespace is being changed"
	}
}

// messageBytes is how large the messages of a namespace may be.
func messageBytes(n Namespace) int { return n.Coordinator.Config().MaxPayload + messageOverhead }

// namespace finds a namespace by the name in a request.
func (s *Server) namespace(name string) (*served, error) {
	if name == "" {
		name = multicastregistry.DefaultNamespace
	}
	now := s.serving.Load()
	if n, ok := now.namespaces[name]; ok {
		return n, nil
	}
	const most = 10
	known, more := now.names, ""
	if len(known) > most {
		known, more = known[:most], ", …"
	}
	return nil, fmt.Errorf("namespace %q: %w; this server has: %s%s (ListNamespaces tells more)",
		shorten(name), multicastregistry.ErrNotFound, strings.Join(known, ", "), more)
}

// shorten keeps what a message quotes to a readable length.
func shorten(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
