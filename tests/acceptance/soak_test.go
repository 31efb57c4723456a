package acceptance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/testenv"
)

const (
	soakSubscribers = 40
	soakSenders     = 4
	soakGroups      = 4
)

// TestSoak lets senders multicast through three proxies to subscribers that crash, stall, refuse, reconnect and lose acks,
// while the brokers are killed and started again. A checker (soak_check_test.go) then has what every message's fate is by all
// that was told, and that it is the truth. PRISM_SOAK=60s sets how long that goes on (default: 8s); PRISM_SOAK_SEED repeats
// the random choices of a run, though not its timing.
func TestSoak(t *testing.T) {
	span := 8 * time.Second
	if text := os.Getenv("PRISM_SOAK"); text != "" {
		var err error
		span, err = time.ParseDuration(text)
		must(t, err)
	}
	seed := rand.Uint64()
	if text := os.Getenv("PRISM_SOAK_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Parallel()
	for _, c := range []combination{
		{name: "memory+memory+memory", durable: true},
		{name: "redis+nats+redis", durable: true},
		{name: "redis+nats+nats", durable: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			t.Logf("PRISM_SOAK_SEED=%d", seed)
			newSoak(t, c, seed).run(span)
		})
	}
}

// soak is one run.
type soak struct {
	t         testing.TB
	seed      uint64
	start     time.Time
	namespace string
	proxies   []*proxy
	brokers   []broker
	log       *history

	calm        atomic.Bool // nobody misbehaves any more
	memberships atomic.Int64
	restarts    int
	members     []*member
}

// broker is a backend of the run's own.
type broker struct {
	name        string
	stop, start func()
}

func newSoak(t testing.TB, c combination, seed uint64) *soak {
	t.Helper()
	s := &soak{t: t, seed: seed, start: time.Now(), namespace: testenv.Prefix(t)}
	s.log = newHistory(s.start)
	if c.messaging() == "memory" {
		p := c.serveAs(t, s.namespace, c.slots(t))
		s.proxies = []*proxy{p, dial(t, p.at, p.namespace), dial(t, p.at, p.namespace)}
		return s
	}
	redis, nats := testenv.NewRedis(t, "--appendonly", "yes", "--appendfsync", "always"), testenv.NewNATS(t, nil)
	s.brokers = []broker{{"Redis", redis.Kill, redis.Start}, {"NATS", nats.Stop, nats.Start}}
	slots := c.altered(t, func(slot *slot) {
		switch slot.typ {
		case "redis":
			slot.at = redis.Addr
		case "nats":
			slot.at = nats.URL[len("nats://"):]
		}
	})
	for range 3 {
		s.proxies = append(s.proxies, c.serveAs(t, s.namespace, slots, "timeout: 3s"))
	}
	return s
}

// random returns the source of the random choices of one actor.
func (s *soak) random(actor string, i int) *rand.Rand {
	h := s.seed
	for _, b := range []byte(actor) {
		h = h*1099511628211 ^ uint64(b)
	}
	return rand.New(rand.NewPCG(h, uint64(i)))
}

func (s *soak) run(span time.Duration) {
	t := s.t
	t.Helper()
	subscribing, leave := context.WithCancel(context.WithoutCancel(t.Context()))
	var joined sync.WaitGroup
	defer joined.Wait()
	defer leave()
	for i := range soakSubscribers {
		m := &member{s: s, i: i, id: name(i), random: s.random("subscriber", i), ready: make(chan struct{}, 1)}
		s.members = append(s.members, m)
		joined.Go(func() { m.live(subscribing) })
	}
	for _, m := range s.members {
		select {
		case <-m.ready:
		case <-time.After(30 * time.Second):
			t.Fatalf("%s does not join", m.id)
		}
	}
	sending, stop := context.WithCancel(t.Context())
	var senders sync.WaitGroup
	for i := range soakSenders {
		senders.Go(func() { s.send(sending, i, s.random("sender", i)) })
	}
	s.disturb(span)
	stop()
	senders.Wait()
	s.calm.Store(true)
	for _, m := range s.members { // what a handler has refused is delivered again to the next stream
		m.cut()
	}
	s.check()
}

// disturb breaks connections, ends programs and restarts the brokers, until the time is over.
func (s *soak) disturb(span time.Duration) {
	r := s.random("disturber", 0)
	begin, end := time.Now(), time.After(span)
	for {
		pause := time.NewTimer(time.Duration(50+r.IntN(200)) * time.Millisecond)
		select {
		case <-pause.C:
		case <-end:
			pause.Stop()
			return
		}
		m := s.members[r.IntN(len(s.members))]
		if r.IntN(2) == 0 {
			m.cut()
		} else {
			m.crash()
		}
		// Each broker is away once in a short run, and about every 20 seconds in a long one.
		if turn := s.restarts; len(s.brokers) > 0 && time.Since(begin) > time.Duration(turn+1)*min(span/3, 10*time.Second) {
			b := s.brokers[turn%len(s.brokers)]
			s.log.away(b.name, true)
			b.stop()
			<-time.After(time.Duration(200+r.IntN(600)) * time.Millisecond)
			b.start()
			s.log.away(b.name, false)
			s.restarts++
		}
	}
}

// send multicasts until the context ends; the multicast under way then is waited for.
func (s *soak) send(ctx context.Context, sender int, r *rand.Rand) {
	modes := []client.DeliveryMode{client.AtMostOnce, client.AtLeastOnce, client.AtLeastOnce, client.ExactlyOnce, client.ExactlyOnce}
	for n := 0; ctx.Err() == nil; n++ {
		request := client.MulticastRequest{
			Payload: fmt.Appendf(nil, "%d.%d", sender, n), Delivery: modes[r.IntN(len(modes))],
			Timeout: time.Duration(300+r.IntN(1200)) * time.Millisecond, RetryAttempts: 1 + r.IntN(4), RetryDelay: 50 * time.Millisecond,
		}
		if group := r.IntN(soakGroups + 1); group < soakGroups {
			request.Filter = map[string]any{"group": group}
		}
		through := r.IntN(len(s.proxies))
		sent := &multicast{mode: request.Delivery, through: through, began: time.Since(s.start)}
		request.Began = func(id string, _ client.Revision, targets int) { sent.id, sent.targets = id, targets }
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		sent.result, sent.err = s.proxies[through].Multicast(call, request)
		cancel()
		sent.ended = time.Since(s.start)
		s.log.sent(sent)
		pause := time.NewTimer(time.Duration(r.IntN(40)) * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// member is one subscriber: a program that joins again whenever it has crashed, as another membership.
type member struct {
	s      *soak
	i      int
	id     string
	ready  chan struct{}
	handle sync.Mutex // of random
	random *rand.Rand

	mu         sync.Mutex
	wire       *wire
	connection *client.Client
}

// live joins again and again until the context ends.
func (m *member) live(ctx context.Context) {
	for ctx.Err() == nil {
		err := m.once(ctx)
		if ctx.Err() == nil && !errors.Is(err, client.ErrClosed) {
			m.s.t.Errorf("%s: join: %v", m.id, err)
			return
		}
	}
}

// once is one membership: its window knows what it has handled.
func (m *member) once(ctx context.Context) error {
	through := m.s.proxies[m.pick(len(m.s.proxies))]
	w := new(wire)
	connection, err := client.Dial(through.at, client.WithNamespace(m.s.namespace), w.option())
	if err != nil {
		return err
	}
	defer connection.Close()
	m.mu.Lock()
	m.wire, m.connection = w, connection
	m.mu.Unlock()
	number := m.s.memberships.Add(1)
	registration := client.Registration{ID: m.id, TTL: time.Hour, Metadata: map[string]any{"group": m.i % soakGroups}}
	return connection.Join(ctx, registration, func(ctx context.Context, message client.Message) error {
		return m.take(ctx, number, message)
	}, client.WithoutUnregister(), client.WithConcurrency(2), client.OnJoined(func() {
		select {
		case m.ready <- struct{}{}:
		default:
		}
	}))
}

func (m *member) pick(n int) int {
	m.handle.Lock()
	defer m.handle.Unlock()
	return m.random.IntN(n)
}

// take is the handler: at random it stalls, refuses, or finishes and loses the ack.
func (m *member) take(ctx context.Context, membership int64, message client.Message) error {
	m.s.log.handed(message, membership)
	fate := m.pick(100)
	if m.s.calm.Load() {
		fate = 100
	}
	switch {
	case fate < 2:
		stall := time.NewTimer(time.Duration(300+m.pick(900)) * time.Millisecond)
		defer stall.Stop()
		select {
		case <-stall.C:
		case <-ctx.Done():
		}
	case fate < 5:
		m.s.log.refused(message, membership)
		return errors.New("refused")
	}
	m.s.log.finished(message, membership)
	if fate >= 5 && fate < 8 {
		m.cut()
	}
	return nil
}

// cut breaks the connection: the membership reconnects.
func (m *member) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wire != nil {
		m.wire.cut()
	}
}

// crash ends the program abruptly: the next one knows nothing of what it has handled.
func (m *member) crash() {
	m.cut()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.connection != nil {
		_ = m.connection.Close()
	}
}
