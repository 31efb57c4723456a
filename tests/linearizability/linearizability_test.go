package linearizability

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// workers is how many clients there are, one half for each proxy.
const workers = 6

// TestLinearizable has clients of two proxies work on the same identities while everything fails in turn, and checks that
// their histories have an order. PRISM_LINEARIZABILITY=60s sets how long that goes on at the least (default: until each fault
// has been once, some 15 seconds); PRISM_LINEARIZABILITY_SEED repeats the random choices of a run, though not its timing.
func TestLinearizable(t *testing.T) {
	var span time.Duration
	if text := os.Getenv("PRISM_LINEARIZABILITY"); text != "" {
		var err error
		span, err = time.ParseDuration(text)
		must(t, err)
	}
	seed := rand.Uint64()
	if text := os.Getenv("PRISM_LINEARIZABILITY_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("PRISM_LINEARIZABILITY_SEED=%d", seed)
	s, h := newSetUp(t), newHistory()
	var round atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	for i := range workers {
		w := s.worker(t, i, h, seed)
		w.round = &round
		working.Go(func() { w.run(ctx) })
	}
	defer working.Wait()
	defer stop()
	rounds := s.rounds(t, rand.New(rand.NewPCG(seed, workers)), time.Now().Add(span), func(n int) { round.Store(int64(n)) })
	stop()
	working.Wait()
	s.readAll(t, h, seed, rounds)
	h.tell(t)
	h.check(t)
}

// worker returns a client of one of the proxies.
func (s *setUp) worker(t testing.TB, number int, h *history, seed uint64) *worker {
	t.Helper()
	return &worker{
		t: t, number: number, random: rand.New(rand.NewPCG(seed, uint64(number))),
		own: s.clients[number%2], other: s.clients[1-number%2], history: h, known: make(map[string]registration),
	}
}

// readAll reads what is left in the end, through each proxy.
func (s *setUp) readAll(t testing.TB, h *history, seed uint64, rounds int) {
	t.Helper()
	var all []string
	for round := range rounds {
		all = append(all, names(round)...)
	}
	for i := range s.clients {
		s.worker(t, workers+i, h, seed).readAtLast(t.Context(), all...)
	}
}

// tell tells how much there is to check, and fails when the run has not been what it was to be.
func (h *history) tell(t testing.TB) {
	t.Helper()
	var unknown, refused, reads, back int
	for _, o := range h.operations {
		switch {
		case o.out.unknown:
			unknown++
		case o.since > 0:
			back++
		case o.in.kind == read:
			reads++
		case !o.out.ok:
			refused++
		}
	}
	t.Logf("%d operations: %d STRONG reads, %d reads of a revision, %d changes refused, %d of unknown outcome",
		len(h.operations), reads, back, refused, unknown)
	if unknown == 0 || refused == 0 || reads == 0 || back == 0 {
		t.Error("there has to be some of each")
	}
}

// TestStaleReadIsRefused has the checker find a read that is older than it may be: an EVENTUAL one, through a proxy whose way
// to Redis is stalled, that passes for STRONG. A STRONG one through that proxy has no answer before it has the right one.
func TestStaleReadIsRefused(t *testing.T) {
	s := newSetUp(t)
	for round, row := range []struct {
		what string
		pass func(o *operation, second registration)
	}{
		{"as STRONG", func(*operation, registration) {}},
		{"as one of the revision", func(o *operation, second registration) { o.call, o.since = second.call, second.revision }},
	} {
		id, h := name(round, 0), newHistory()
		one, two := s.worker(t, 0, h, 0), s.worker(t, 1, h, 0)
		if !one.unregister(t.Context(), input{kind: unregister, id: id}, 0) || !one.register(t.Context(), id, replace) {
			t.Fatal("the first registration failed")
		}
		if !two.readStrong(t.Context(), nil, id) {
			t.Fatal("the other proxy does not read it")
		}
		s.ways[1].Stall()
		if !one.register(t.Context(), id, replace) {
			t.Fatal("the second registration failed")
		}
		if two.readStrong(t.Context(), nil, id) {
			t.Error("a STRONG read has an answer that cannot be known")
		}
		two.latest = one.latest
		if two.read(t.Context(), two.own, one.latest.call, client.Query{MinRevision: one.latest.revision}, id) {
			t.Error("a read of a revision has an answer that cannot be known")
		}
		h.check(t)
		sound := len(h.operations)

		two.latest = registration{}
		if !two.read(t.Context(), two.own, h.now(), client.Query{}, id) {
			t.Fatal("an EVENTUAL read has no answer")
		}
		row.pass(&h.operations[sound], one.latest)
		if found := h.refused(t); !slices.Equal(found, []string{id}) {
			t.Errorf("a stale read passes %s: %v", row.what, describe(h.operations[sound].in, h.operations[sound].out))
		}
		if len(h.misnumbered()) == 0 {
			t.Errorf("the revision of a stale page passes %s", row.what)
		}
		h.operations, h.answers = h.operations[:sound], h.answers[:len(h.answers)-1]

		s.ways[1].Heal()
		two.readAtLast(t.Context(), id)
		h.check(t)
	}
}
