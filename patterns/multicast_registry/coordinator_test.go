package multicastregistry_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

var errBroken = errors.New("broken on purpose")

func memorySlots() mr.Slots {
	return mr.Slots{Registry: memory.NewRegistry(memory.RegistryConfig{}), Messaging: memory.NewMessaging(memory.MessagingConfig{})}
}

func open(t testing.TB, cfg mr.Config, slots mr.Slots) *mr.Coordinator {
	t.Helper()
	c, err := mr.Open(t.Context(), cfg, slots)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func register(t testing.TB, c *mr.Coordinator, n int, metadata func(i int) map[string]any) {
	t.Helper()
	for i := range n {
		r := mr.Registration{ID: fmt.Sprintf("id-%05d", i)}
		if metadata != nil {
			r.Metadata = metadata(i)
		}
		if _, err := c.Register(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

func parse(t *testing.T, src string) *filter.Expr {
	t.Helper()
	e, err := filter.Parse(src)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	whole := memorySlots()
	for name, row := range map[string]struct {
		cfg   mr.Config
		slots mr.Slots
		want  error
	}{
		"no registry":  {mr.Config{}, mr.Slots{Messaging: whole.Messaging}, mr.ErrInvalid},
		"no messaging": {mr.Config{}, mr.Slots{Registry: whole.Registry}, mr.ErrInvalid},
		"bad config":   {mr.Config{Namespace: "Not A Name"}, whole, mr.ErrInvalid},
		"no inbox":     {mr.Config{}, mr.Slots{Registry: whole.Registry, Messaging: noInbox{whole.Messaging}}, errBroken},
	} {
		if _, err := mr.Open(t.Context(), row.cfg, row.slots); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
}

type noInbox struct{ mr.Messaging }

func (noInbox) Inbox(context.Context) (mr.Inbox, error) { return nil, errBroken }

func TestRegister(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{TTLDefault: 7 * time.Second}, memorySlots())
	for name, row := range map[string]struct {
		in      mr.Registration
		ttl     time.Duration
		invalid string
	}{
		"default ttl":   {in: mr.Registration{ID: "a"}, ttl: 7 * time.Second},
		"own ttl":       {in: mr.Registration{ID: "b", TTL: time.Minute}, ttl: time.Minute},
		"rounded ttl":   {in: mr.Registration{ID: "c", TTL: 1500*time.Millisecond + 1}, ttl: 1501 * time.Millisecond},
		"never expires": {in: mr.Registration{ID: "d", TTL: mr.NoExpiry}, ttl: mr.NoExpiry},
		"empty name":    {in: mr.Registration{}, invalid: "identity"},
		"long name":     {in: mr.Registration{ID: strings.Repeat("x", 257)}, invalid: "identity"},
		"negative ttl":  {in: mr.Registration{ID: "e", TTL: -2}, invalid: "ttl"},
		"endless ttl":   {in: mr.Registration{ID: "f", TTL: 101 * 365 * 24 * time.Hour}, invalid: "ttl"},
		"not JSON":      {in: mr.Registration{ID: "g", Metadata: map[string]any{"x": struct{}{}}}, invalid: "metadata/x"},
	} {
		got, err := c.Register(t.Context(), row.in)
		var bad *mr.InvalidError
		switch {
		case row.invalid != "":
			if !errors.As(err, &bad) || bad.Field != row.invalid {
				t.Errorf("%s: got %v, want a complaint about %s", name, err, row.invalid)
			}
		case err != nil || got.TTL != row.ttl:
			t.Errorf("%s: got TTL %v, %v; want %v", name, got.TTL, err, row.ttl)
		}
	}
}

// TestHeartbeatInsteadOfRegister pins two faults of earlier attempts: a heartbeat that fails with "already registered",
// and one that rewrites metadata.
func TestHeartbeatInsteadOfRegister(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := open(t, mr.Config{}, memorySlots())
		r := mr.Registration{ID: "a", Metadata: map[string]any{"x": 1}, TTL: time.Second}
		if _, err := c.Register(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Register(t.Context(), r); !errors.Is(err, mr.ErrAlreadyExists) {
			t.Errorf("a second create: %v", err)
		}
		time.Sleep(900 * time.Millisecond) //nolint:forbidigo // synctest's clock
		if lease, err := c.Heartbeat(t.Context(), "a", 0); err != nil || lease.TTL != time.Second {
			t.Fatalf("heartbeat: %+v, %v", lease, err)
		}
		time.Sleep(900 * time.Millisecond) //nolint:forbidigo // synctest's clock
		page, err := c.Enumerate(t.Context(), mr.Query{Filter: parse(t, `{"x":1}`)})
		if err != nil || page.Total != 1 {
			t.Fatalf("after the heartbeat: %+v, %v", page, err)
		}
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // synctest's clock
		if _, err := c.Heartbeat(t.Context(), "a", 0); !errors.Is(err, mr.ErrNotFound) {
			t.Errorf("heartbeat after the lease ended: %v", err)
		}
		// No sweep stands between an expiry and a new registration.
		if _, err := c.Register(t.Context(), r); err != nil {
			t.Errorf("register after the lease ended: %v", err)
		}
		for name, err := range map[string]error{
			"no name": second(c.Heartbeat(t.Context(), "", 0)), "bad ttl": second(c.Heartbeat(t.Context(), "a", -7)),
			"unregister no name": second(c.Unregister(t.Context(), "", 0)),
		} {
			if !errors.Is(err, mr.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestUnregister(t *testing.T) {
	t.Parallel()
	slots := memorySlots()
	slots.Durability = memory.NewDurability(memory.DurabilityConfig{})
	c := open(t, mr.Config{}, slots)
	register(t, c, 1, nil)
	if result, err := c.Multicast(t.Context(), mr.Request{}); err != nil || result.Pending != 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	for i, want := range []bool{true, false} {
		if existed, err := c.Unregister(t.Context(), "id-00000", 0); err != nil || existed != want {
			t.Errorf("call %d: %v, %v", i, existed, err)
		}
	}
	if n, err := slots.Durability.Purge(t.Context(), mr.Topic("default", "id-00000")); n != 0 || err != nil {
		t.Errorf("unregistering left %d stored messages behind, %v", n, err)
	}
}

func TestEnumeratePages(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{}, memorySlots())
	register(t, c, 250, func(i int) map[string]any { return map[string]any{"even": i%2 == 0} })
	for _, size := range []int{0, 1, 7, 100, 125, 10_000} {
		var got []string
		for q := (mr.Query{Filter: parse(t, `{"even":true}`), PageSize: size}); ; {
			page, err := c.Enumerate(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if page.Total != 125 || page.Revision != 250 {
				t.Fatalf("size %d: total %d at revision %d", size, page.Total, page.Revision)
			}
			for _, identity := range page.Identities {
				got = append(got, identity.ID)
			}
			if page.NextPageToken == "" {
				break
			}
			q.PageToken = page.NextPageToken
		}
		if len(got) != 125 {
			t.Errorf("size %d: %d identities", size, len(got))
		}
		for i, id := range got {
			if id != fmt.Sprintf("id-%05d", 2*i) {
				t.Fatalf("size %d: place %d holds %s", size, i, id)
			}
		}
	}
}

// TestEnumeratePagesUnderChange removes the identity that a token points at and registers others on both sides of it.
func TestEnumeratePagesUnderChange(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{}, memorySlots())
	register(t, c, 4, nil)
	first, err := c.Enumerate(t.Context(), mr.Query{PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Unregister(t.Context(), "id-00001", 0); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"id-0", "id-00001x"} {
		if _, err := c.Register(t.Context(), mr.Registration{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	rest, err := c.Enumerate(t.Context(), mr.Query{PageToken: first.NextPageToken})
	if err != nil || len(rest.Identities) != 3 || rest.Identities[0].ID != "id-00001x" || rest.Identities[2].ID != "id-00003" {
		t.Errorf("the second page: %+v, %v", rest.Identities, err)
	}
}

func TestEnumerateRefuses(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{}, memorySlots())
	for name, q := range map[string]mr.Query{
		"negative size": {PageSize: -1},
		"huge size":     {PageSize: mr.MaxPageSize + 1},
		"bad token":     {PageToken: "!"},
		"long token":    {PageToken: strings.Repeat("AAAA", 100)},
	} {
		if _, err := c.Enumerate(t.Context(), q); !errors.Is(err, mr.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// brokenRegistry fails where it is told to.
type brokenRegistry struct {
	*memory.Registry
	scan, head, ping, count error
}

func (r brokenRegistry) Scan(ctx context.Context, f *filter.Expr) iter.Seq2[mr.Identity, error] {
	return func(yield func(mr.Identity, error) bool) {
		for identity, err := range r.Registry.Scan(ctx, f) {
			if !yield(identity, err) {
				return
			}
		}
		if r.scan != nil {
			yield(mr.Identity{}, r.scan)
		}
	}
}

func (r brokenRegistry) Find(ctx context.Context, f *filter.Expr) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for identity, err := range r.Scan(ctx, f) {
			if !yield(identity.ID, err) {
				return
			}
		}
	}
}

func (r brokenRegistry) Query(ctx context.Context, q mr.Selection) (mr.Selected, error) {
	if r.scan != nil {
		return mr.Selected{}, r.scan
	}
	return r.Registry.Query(ctx, q)
}

func (r brokenRegistry) Head(ctx context.Context) (mr.Revision, error) {
	head, err := r.Registry.Head(ctx)
	return head, errors.Join(err, r.head)
}

func (r brokenRegistry) Ping(context.Context) error { return r.ping }

func (r brokenRegistry) Count(context.Context) (int, error) { return 0, r.count }

func TestRegistryErrorsAreErrors(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]brokenRegistry{"scan": {scan: errBroken}, "head": {head: errBroken}} {
		broken.Registry = memory.NewRegistry(memory.RegistryConfig{})
		slots := memorySlots()
		slots.Registry = broken
		c := open(t, mr.Config{}, slots)
		register(t, c, 3, nil)
		if page, err := c.Enumerate(t.Context(), mr.Query{}); !errors.Is(err, errBroken) || len(page.Identities) > 0 {
			t.Errorf("%s: enumerate returned %+v, %v", name, page, err)
		}
		if result, err := c.Multicast(t.Context(), mr.Request{}); !errors.Is(err, errBroken) || result != nil {
			t.Errorf("%s: multicast returned %+v, %v", name, result, err)
		}
	}
}

// bareRegistry hides every optional ability.
type bareRegistry struct{ mr.Registry }

func TestAbilities(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{}, memorySlots())
	register(t, c, 3, nil)
	if n, ok, err := c.Count(t.Context()); n != 3 || !ok || err != nil {
		t.Errorf("count: %d, %v, %v", n, ok, err)
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	slots := memorySlots()
	slots.Registry = bareRegistry{slots.Registry}
	c = open(t, mr.Config{}, slots)
	register(t, c, 3, nil)
	if _, ok, err := c.Count(t.Context()); ok || err != nil {
		t.Errorf("count without the ability: %v, %v", ok, err)
	}
	if page, err := c.Enumerate(t.Context(), mr.Query{}); err != nil || page.Revision != 0 || page.Total != 3 {
		t.Errorf("enumerate without revisions: %+v, %v", page, err)
	}
	slots.Registry = brokenRegistry{Registry: memory.NewRegistry(memory.RegistryConfig{}), ping: errBroken}
	c = open(t, mr.Config{Namespace: "fleet"}, slots)
	if err := c.Ping(t.Context()); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "fleet: registry") {
		t.Errorf("ping of a backend that is away: %v", err)
	}
}

// TestConcurrent is SPEC's concurrency scenario on the bare coordinator: 100 register, 50 enumerate, 10 multicast at once.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{}, memorySlots())
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			if _, err := c.Register(t.Context(), mr.Registration{ID: fmt.Sprintf("dev-%d", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	for range 50 {
		all.Go(func() {
			if page, err := c.Enumerate(t.Context(), mr.Query{}); err != nil || page.Total > 100 {
				t.Errorf("%d identities, %v", page.Total, err)
			}
		})
	}
	for range 10 {
		all.Go(func() {
			result, err := c.Multicast(t.Context(), mr.Request{Delivery: mr.AtMostOnce})
			if err != nil || result.Delivered != len(result.Targets) {
				t.Errorf("%+v, %v", result, err)
			}
		})
	}
	all.Wait()
	if page, err := c.Enumerate(t.Context(), mr.Query{}); err != nil || page.Total != 100 {
		t.Errorf("%d identities, %v", page.Total, err)
	}
}

// TestTwoCoordinators pins the worst fault of an earlier attempt: a coordinator that keeps identities of its own shows
// nothing to a second one, and nothing after a restart.
func TestTwoCoordinators(t *testing.T) {
	t.Parallel()
	slots := memorySlots()
	a, b := open(t, mr.Config{}, slots), open(t, mr.Config{}, slots)
	register(t, a, 10, nil)
	if page, err := b.Enumerate(t.Context(), mr.Query{}); err != nil || page.Total != 10 {
		t.Errorf("the other one sees %d identities, %v", page.Total, err)
	}
	attach(t, b, always, ids(10)...)
	if result, err := a.Multicast(t.Context(), mr.Request{}); err != nil || result.Delivered != 10 {
		t.Errorf("through the other one: %+v, %v", result, err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if existed, err := b.Unregister(t.Context(), "id-00000", 0); err != nil || !existed {
		t.Errorf("after the first one closed: %v, %v", existed, err)
	}
	if page, err := open(t, mr.Config{}, slots).Enumerate(t.Context(), mr.Query{}); err != nil || page.Total != 9 {
		t.Errorf("a third one sees %d identities, %v", page.Total, err)
	}
}

// TestMetadataIsBounded keeps one identity from making enumerations too large for everybody's messages.
func TestMetadataIsBounded(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{}, memorySlots())
	for size, fits := range map[int]bool{64 << 10: true, 64<<10 + 1: false} {
		_, err := c.Register(t.Context(), mr.Registration{ID: "a", Mode: mr.Replace, Metadata: map[string]any{
			"k": strings.Repeat("x", size-200), "l": []any{1, true, nil, map[string]any{"mm": "nn"}}, "o": strings.Repeat("y", 69),
		}})
		if (err == nil) != fits || err != nil && !errors.Is(err, mr.ErrInvalid) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	empty := make([]any, 10_000)
	for i := range empty {
		empty[i] = ""
	}
	if _, err := c.Register(t.Context(), mr.Registration{ID: "b", Metadata: map[string]any{"x": empty}}); !errors.Is(err, mr.ErrInvalid) {
		t.Errorf("10,000 empty strings: %v", err)
	}
}

// TestPagesEndEarly has more metadata than one message holds: pages get shorter, and nothing is left out.
func TestPagesEndEarly(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{MaxMetadata: 4 << 20}, memorySlots())
	for i, size := range []int{1 << 20, 1 << 20, 3 << 20, 100, 100, 3 << 20} {
		_, err := c.Register(t.Context(), mr.Registration{
			ID: fmt.Sprint("id-", i), Metadata: map[string]any{"x": strings.Repeat("x", size)},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var pages []int
	for q := (mr.Query{PageSize: 1000}); ; {
		page, err := c.Enumerate(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if page.Total != 6 {
			t.Errorf("total %d", page.Total)
		}
		pages = append(pages, len(page.Identities))
		if q.PageToken = page.NextPageToken; q.PageToken == "" {
			break
		}
	}
	if want := []int{1, 1, 1, 2, 1}; !slices.Equal(pages, want) {
		t.Errorf("pages of %v identities, want %v", pages, want)
	}
}

// TestLookUpTakesTooLong tells a timeout before anything was sent from one after.
func TestLookUpTakesTooLong(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{}, memorySlots())
	register(t, c, 1, nil)
	_, err := c.Multicast(t.Context(), mr.Request{Timeout: 1})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "nothing was sent") {
		t.Errorf("got %v", err)
	}
}

// TestUnregisterOnly keeps what a successor has, its stored messages included.
func TestUnregisterOnly(t *testing.T) {
	t.Parallel()
	slots := memorySlots()
	slots.Durability = memory.NewDurability(memory.DurabilityConfig{})
	c := open(t, mr.Config{}, slots)
	before, err := c.Register(t.Context(), mr.Registration{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Register(t.Context(), mr.Registration{ID: "a", Mode: mr.Replace}); err != nil {
		t.Fatal(err)
	}
	if result, err := c.Multicast(t.Context(), mr.Request{}); err != nil || result.Pending != 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	if existed, err := c.Unregister(t.Context(), "a", before.Revision); err != nil || existed {
		t.Errorf("%v, %v", existed, err)
	}
	if n, err := slots.Durability.Purge(t.Context(), mr.Topic("default", "a")); n != 1 || err != nil {
		t.Errorf("%d stored messages are left, %v", n, err)
	}
}
