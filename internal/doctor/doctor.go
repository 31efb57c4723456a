// Package doctor examines a server as a client sees it: whether it can be reached, whether every backend of a namespace does its
// part, and whether clocks agree. It registers one identity in each namespace, sends it messages, and removes it again.
package doctor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// Verdict is what came of one check.
type Verdict string

// The verdicts.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning"
	Failed  Verdict = "failed"
	Skipped Verdict = "skipped" // the caller may not
)

// Finding is one check.
type Finding struct {
	// Namespace is what was examined. Empty: the server.
	Namespace string `json:"namespace,omitempty"`
	// Check says what was tried.
	Check string `json:"check"`
	// Verdict is what came of it.
	Verdict Verdict `json:"verdict"`
	// Detail is what was found.
	Detail string `json:"detail,omitempty"`
	// Advice is what to do about it, if there is something to do.
	Advice string `json:"advice,omitempty"`
}

// Defaults of Config.
const (
	DefaultPrefix  = "prism-doctor/"
	DefaultMarker  = "prism_doctor"
	DefaultTimeout = 10 * time.Second
)

// Config says how to examine. Zero fields take their defaults.
type Config struct {
	// Namespaces to examine. Empty: all that the server lists for this caller.
	Namespaces []string
	// Prefix begins the names of the identities that are registered.
	Prefix string
	// Metadata are theirs, besides the marker.
	Metadata map[string]any
	// Marker is a field of text by which an identity finds itself: messages go to those that have it.
	Marker string
	// Timeout bounds each check.
	Timeout time.Duration
	// Found, if set, is told of each finding as it comes.
	Found func(Finding)
}

const (
	// maxSkew is how far the clock of what keeps leases may be from ours.
	maxSkew = time.Second
	// slow is from when on a check is worth a word.
	slow = time.Second
	// lease is the TTL of what is registered, should it not be removed.
	lease = time.Minute
)

// Healthy tells whether nothing failed.
func Healthy(findings []Finding) bool {
	return !slices.ContainsFunc(findings, func(f Finding) bool { return f.Verdict == Failed })
}

// Examine makes all checks, and goes on after one that failed where it can.
func Examine(ctx context.Context, c *client.Client, cfg Config) []Finding {
	e := &examination{cfg: cfg}
	setDefault(&e.cfg.Prefix, DefaultPrefix)
	setDefault(&e.cfg.Marker, DefaultMarker)
	setDefault(&e.cfg.Timeout, DefaultTimeout)
	var infos []client.NamespaceInfo
	ok := e.check(ctx, "reach the server", func(ctx context.Context) (detail string, err error) {
		infos, err = c.Namespaces(ctx)
		return fmt.Sprintf("%s, %d namespaces for this caller", c.Server(), len(infos)), err
	})
	if !ok {
		return e.findings
	}
	known := make(map[string]client.NamespaceInfo)
	for _, info := range infos {
		known[info.Name] = info
	}
	names := cfg.Namespaces
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(known))
	}
	if len(names) == 0 {
		e.found(Finding{
			Check: "find a namespace", Verdict: Failed, Detail: "this caller may do nothing in any",
			Advice: "Look at access in the server's configuration: no rule is about this caller.",
		})
	}
	for _, name := range names {
		e.namespace = name
		if info, ok := known[name]; ok {
			e.examine(ctx, c.In(name), info)
			continue
		}
		e.found(Finding{
			Check: "find the namespace", Verdict: Failed, Detail: "the server has none of that name for this caller",
			Advice: "`prism namespaces` lists them; access in the server's configuration says who may use which.",
		})
	}
	return e.findings
}

func setDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// examination is one run.
type examination struct {
	cfg       Config
	namespace string
	findings  []Finding
}

func (e *examination) found(f Finding) {
	f.Namespace = e.namespace
	e.findings = append(e.findings, f)
	if e.cfg.Found != nil {
		e.cfg.Found(f)
	}
}

// check makes one check, and tells whether it worked.
func (e *examination) check(ctx context.Context, what string, do func(ctx context.Context) (detail string, err error)) bool {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
	defer cancel()
	start := time.Now()
	detail, err := do(ctx)
	took := time.Since(start)
	f := Finding{Check: what, Verdict: OK, Detail: fmt.Sprintf("%s, in %s", detail, took.Round(10*time.Microsecond))}
	switch {
	case errors.Is(err, client.ErrPermissionDenied):
		f.Verdict, f.Detail = Skipped, err.Error()
	case err != nil:
		f.Verdict, f.Detail, f.Advice = Failed, err.Error(), e.advice(err)
	case took > slow:
		f.Verdict, f.Advice = Warning, "That is slow: look at the backend's latency, and at the load of its machine and the server's."
	}
	e.found(f)
	return err == nil
}

// advice says what to do about an error.
func (e *examination) advice(err error) string {
	switch {
	case client.Unreachable(err):
		return "Does the server run there, does anything between drop connections, and does one side use TLS and the other not?"
	case errors.Is(err, client.ErrUnauthenticated):
		return "Say who you are: --token-file, PRISM_TOKEN or --cert-file."
	case errors.Is(err, client.ErrUnavailable):
		return "The server is there and a backend behind it is not: /readyz, with auth that of the admin address, and the server's " +
			"log say which, and why."
	case errors.Is(err, client.ErrQuota):
		return "A limit of the namespace, or of a backend (maxmemory), is reached: the message names it."
	case errors.Is(err, client.ErrInvalid):
		return fmt.Sprintf("If the namespace has an identity_schema: --metadata gives what it asks for, and --marker names a field of "+
			"text that it has, in place of %q.", e.cfg.Marker)
	case errors.Is(err, context.DeadlineExceeded):
		return "There was no answer in time: a backend hangs, or the network does."
	}
	return ""
}

// examine makes the round trip of one identity.
func (e *examination) examine(ctx context.Context, c *client.Client, info client.NamespaceInfo) {
	var raw [8]byte
	_, _ = rand.Read(raw[:]) // documented never to fail
	mark := hex.EncodeToString(raw[:])
	p := &patient{Client: c, id: e.cfg.Prefix + mark, filter: map[string]any{e.cfg.Marker: map[string]any{"$eq": mark}}}
	metadata := maps.Clone(e.cfg.Metadata)
	if metadata == nil {
		metadata = make(map[string]any)
	}
	metadata[e.cfg.Marker] = mark

	var registered client.Identity
	before := time.Now()
	ok := e.check(ctx, "register", func(ctx context.Context) (_ string, err error) {
		registered, err = c.Register(ctx, client.Registration{ID: p.id, Metadata: metadata, TTL: lease})
		return "registry " + info.Registry, err
	})
	if !ok {
		return
	}
	e.clock(registered, before, time.Since(before))
	e.check(ctx, "heartbeat", func(ctx context.Context) (string, error) {
		_, err := c.Heartbeat(ctx, p.id, 0)
		return "the lease is renewed", err
	})
	e.check(ctx, "enumerate", p.enumerate)
	if info.Durability != "" {
		e.check(ctx, "deliver what was stored", func(ctx context.Context) (string, error) {
			return "durability " + info.Durability, p.deliver(ctx, true)
		})
	}
	e.check(ctx, "deliver", func(ctx context.Context) (string, error) {
		return "messaging " + info.Messaging, p.deliver(ctx, false)
	})
	e.check(context.WithoutCancel(ctx), "unregister", func(ctx context.Context) (string, error) {
		existed, err := c.UnregisterIf(ctx, p.id, registered.Revision)
		if err == nil && !existed {
			err = errors.New("it was gone already")
		}
		return "nothing is left behind", err
	})
}

// clock compares the time of a registration, by the clock of what keeps leases, with ours.
func (e *examination) clock(registered client.Identity, before time.Time, took time.Duration) {
	ahead := registered.RegisteredAt.Sub(before.Add(took / 2)).Round(time.Millisecond)
	f := Finding{Check: "clock", Verdict: OK, Detail: fmt.Sprintf("the registry's is %s ahead of ours, give or take %s", ahead,
		(took / 2).Round(time.Millisecond))}
	if ahead.Abs() > maxSkew+took {
		f.Verdict = Warning
		f.Advice = "Leases go by the registry's clock alone and do not suffer, but times that are read mislead: run NTP on both sides."
	}
	e.found(f)
}

// patient is the identity that is registered.
type patient struct {
	*client.Client

	id     string
	filter map[string]any
}

func (p *patient) enumerate(ctx context.Context) (string, error) {
	page, err := p.Enumerate(ctx, client.Query{Filter: p.filter, Consistency: client.Strong})
	if err != nil {
		return "", err
	}
	if len(page.Identities) != 1 || page.Identities[0].ID != p.id {
		return "", fmt.Errorf("by its marker %d identities are found, and not just the one that was registered", page.Total)
	}
	return "found by its metadata", nil
}

// deliver sends a message to the identity, which receives and acknowledges it: while it is sent, or later.
func (p *patient) deliver(ctx context.Context, later bool) error {
	send := func() (*client.Result, error) {
		return p.Multicast(ctx, client.MulticastRequest{
			Filter: p.filter, Payload: []byte("prism doctor"), Delivery: client.AtLeastOnce, MaxTargets: 1, Consistency: client.Strong,
		})
	}
	if later {
		result, err := send()
		if err != nil {
			return err
		}
		if result.Pending != 1 {
			return fmt.Errorf("to one who is away it is not stored: %d targets, %d pending, %d failed, %d timed out", result.TargetCount,
				result.Pending, result.Failed, result.TimedOut)
		}
	}
	stream, err := p.Subscribe(ctx)
	if err != nil {
		return err
	}
	defer stream.Close() //nolint:errcheck // what matters was said by then
	if err := stream.Attach(ctx, false, p.id); err != nil {
		return err
	}
	received := make(chan error, 1)
	go func() { received <- receive(ctx, stream) }()
	if later {
		return <-received
	}
	result, err := send()
	if err != nil {
		return err
	}
	if result.Delivered != 1 {
		return fmt.Errorf("it is not delivered: %d targets, %d pending, %d failed, %d timed out", result.TargetCount, result.Pending,
			result.Failed, result.TimedOut)
	}
	return <-received
}

// receive takes a message and acknowledges it.
func receive(ctx context.Context, stream *client.Stream) error {
	for {
		event, err := stream.Next(ctx)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		for _, m := range event.Messages {
			return stream.Ack(m.Name())
		}
	}
}
