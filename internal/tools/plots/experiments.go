package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prism-data-layer/prism/internal/bench"
)

// own is how many identities a load registers for itself, in groups of 100.
const own = 1000

// once are the shares of a load of one operation.
func once(operation string) map[string]float64 { return map[string]float64{operation: 1} }

// identities: one server with a registry that grows, and the same work at each size.
func identities(ctx context.Context, l *lab) error {
	s := l.system()
	defer s.stop()
	if err := s.proxy(ctx, kindProxy, slots{onMemory, onMemory}); err != nil {
		return err
	}
	used, err := s.memory()
	if err != nil {
		return err
	}
	l.add(Point{Series: "memory", Memory: used})
	registered := 0
	for _, n := range l.sizes(1000, 10_000, 100_000, 1_000_000) {
		start := time.Now()
		if err := s.fill(ctx, registered, n-own); err != nil {
			return err
		}
		if n-own > registered {
			fmt.Fprintf(l.out, "registered %d in %s\n", n-own-registered, time.Since(start).Round(time.Millisecond))
		}
		registered = n - own
		for _, work := range []struct {
			series string
			rounds int
			plan   bench.Plan
		}{
			{bench.Enumerate, 3, bench.Plan{Shares: once(bench.Enumerate), Concurrency: 1, Duration: l.long(3 * time.Second)}},
			{bench.Multicast, 3, bench.Plan{Shares: once(bench.Multicast), Concurrency: 1, Duration: l.long(3 * time.Second)}},
			{bench.Register, 3, bench.Plan{Shares: once(bench.Register), Rate: 500, Concurrency: 1, Duration: l.long(3 * time.Second)}},
		} {
			work.plan.Identities, work.plan.Targets = own, 100
			p, err := s.measure(ctx, work.series, n, work.rounds, work.plan, nil)
			if err != nil {
				return err
			}
			l.add(p)
		}
	}
	return nil
}

// targets: one multicast at a time, to all identities that there are, with acks.
func targets(ctx context.Context, l *lab) error {
	for _, backend := range []string{"memory", "nats"} {
		for _, n := range l.sizes(10, 100, 1000, 10_000, 100_000) {
			if err := target(ctx, l, backend, n); err != nil {
				return fmt.Errorf("%s, %d: %w", backend, n, err)
			}
		}
	}
	return nil
}

func target(ctx context.Context, l *lab, backend string, n int) error {
	s := l.system()
	defer s.stop()
	slots := slots{onMemory, onMemory}
	if backend == "nats" {
		address, err := s.nats(ctx)
		if err != nil {
			return err
		}
		slots.messaging = onNATS(address)
	}
	if err := s.proxy(ctx, kindProxy, slots); err != nil {
		return err
	}
	rounds := 1
	if n <= 1000 {
		rounds = 3
	}
	p, err := s.measure(ctx, backend, n, rounds, bench.Plan{
		Shares: once(bench.Multicast), Concurrency: 1, Identities: n, Targets: n, Duration: l.long(4 * time.Second), Keep: true,
	}, nil)
	if err != nil {
		return err
	}
	l.add(p)
	return nil
}

func onNATS(address string) string {
	return fmt.Sprintf(`{type: nats, servers: ["nats://%s"]}`, address)
}

func onRedis(address string) string { return fmt.Sprintf("{type: redis, host: %q}", address) }

// proxies: a mix of operations on a number of proxies over the same Redis and NATS.
func proxies(ctx context.Context, l *lab) error {
	for _, n := range l.sizes(1, 2, 3, 4) {
		if err := proxied(ctx, l, n); err != nil {
			return fmt.Errorf("%d: %w", n, err)
		}
	}
	return nil
}

func proxied(ctx context.Context, l *lab, n int) error {
	s := l.system()
	defer s.stop()
	slots, err := s.backends(ctx)
	if err != nil {
		return err
	}
	for range n {
		if err := s.proxy(ctx, kindProxy, slots); err != nil {
			return err
		}
	}
	p, err := s.measure(ctx, "mix", n, 3, bench.Plan{
		Shares:      map[string]float64{bench.Register: 50, bench.Enumerate: 30, bench.Multicast: 20},
		Concurrency: 16, Identities: own, Targets: 10, Duration: l.long(4 * time.Second),
	}, nil)
	if err != nil {
		return err
	}
	p.P50 = 0 // of which operation?
	l.add(p)
	return nil
}

// backends starts a Redis and a NATS server, and returns what proxies need to use them.
func (s *system) backends(ctx context.Context) (slots, error) {
	redis, err := s.redis(ctx)
	if err != nil {
		return slots{}, err
	}
	nats, err := s.nats(ctx)
	return slots{onRedis(redis), onNATS(nats)}, err
}

// subscribers: streams of one identity each, and multicasts to all of them.
func subscribers(ctx context.Context, l *lab) error {
	for _, n := range l.sizes(1, 10, 100, 1000, 10_000, 20_000) {
		if err := streams(ctx, l, "streams", n, (n+999)/1000); err != nil {
			return fmt.Errorf("%d: %w", n, err)
		}
	}
	return nil
}

// streams takes down what n streams, on so many connections, cost.
func streams(ctx context.Context, l *lab, series string, n, connections int) error {
	s := l.system()
	defer s.stop()
	if err := s.proxy(ctx, kindProxy, slots{onMemory, onMemory}); err != nil {
		return err
	}
	used := make(map[string]float64) // by the stage after which it was looked at
	idle, err := s.memory()
	if err != nil {
		return err
	}
	p, err := s.measure(ctx, series, n, 1, bench.Plan{
		Shares: once(bench.Multicast), Concurrency: 1, Identities: n, Targets: n, Streams: n, Connections: connections,
		Duration: l.long(4 * time.Second), Keep: true,
	}, func(stage string) {
		if now, err := s.memory(); err == nil {
			used[stage] = now[kindProxy]
		}
	})
	if err != nil {
		return err
	}
	// Connections are there before, with all that the identities need: those that streams share are not counted, one for each
	// stream is.
	before := used["find"]
	if connections == n && n > 1 {
		before = idle[kindProxy]
	}
	p.Other = map[string]float64{"bytes_per_stream": max(0, used["subscribe"]-before) / float64(n)}
	l.add(p)
	return nil
}
