package app

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/prism-data-layer/prism/internal/testenv"
	"github.com/prism-data-layer/prism/patterns/nats"
	"github.com/prism-data-layer/prism/patterns/redis"
)

// Slots that say the same about a backend share a connection, over TLS too.
func TestConnectionsAreShared(t *testing.T) {
	cert := testenv.NewCertificate(t)
	server := testenv.NewRedis(t, "--tls-cert-file", cert.Cert, "--tls-key-file", cert.Key, "--tls-ca-cert-file", cert.CA, "--tls-auth-clients", "no")
	all := newConnections(slog.New(slog.DiscardHandler))
	c := all.slot(t.Context())
	secure := func() redis.Config { return redis.Config{Host: server.Addr, TLS: &redis.TLS{CA: cert.CA}} }
	first, err := c.toRedis(t.Context(), secure())
	if err != nil {
		t.Fatal(err)
	}
	if second, err := c.toRedis(t.Context(), secure()); err != nil || second != first {
		t.Errorf("two connections for one configuration, %v", err)
	}
	if _, err := c.toRedis(t.Context(), redis.Config{Host: server.Addr, TLS: &redis.TLS{}}); err == nil {
		t.Error("a configuration with another authority shares the connection")
	}
	carrier, err := c.redisMessaging(t.Context(), first, redis.MessagingConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.redisMessaging(t.Context(), first, redis.MessagingConfig{}); err != nil || again != carrier {
		t.Errorf("two messaging slots for one configuration, %v", err)
	}
	plain := testenv.NATS(t).URL
	one, err := c.toNATS(t.Context(), NATS{Config: nats.Config{Servers: []string{plain}}})
	if err != nil {
		t.Fatal(err)
	}
	if two, err := c.toNATS(t.Context(), NATS{Config: nats.Config{Servers: []string{plain}}}); err != nil || two != one {
		t.Errorf("two connections for one configuration, %v", err)
	}
	here, err := c.toNATS(t.Context(), NATS{Embedded: true})
	if err != nil || here == one {
		t.Fatalf("embedded: %v", err)
	}
	named, err := c.toNATS(t.Context(), NATS{Embedded: true, Config: nats.Config{Name: "other"}})
	servers := func() (n int) {
		for key := range all.open {
			if _, ok := key.(embedded); ok {
				n++
			}
		}
		return n
	}
	if err != nil || named == here || servers() != 1 {
		t.Errorf("%d embedded servers, %v", servers(), err)
	}
	// What is shared ends with the last who uses it.
	other := all.slot(t.Context())
	if again, err := other.toRedis(t.Context(), secure()); err != nil || again != first {
		t.Errorf("another slot has another connection, %v", err)
	}
	if again, err := other.toNATS(t.Context(), NATS{Embedded: true}); err != nil || again != here {
		t.Errorf("another slot has another connection, %v", err)
	}
	c.close()
	if err := errors.Join(first.Ping(t.Context()), here.Ping(t.Context())); err != nil || len(all.open) != 3 {
		t.Errorf("%d are open, %v; want those of the other slot", len(all.open), err)
	}
	other.close()
	if len(all.open) > 0 {
		t.Errorf("%d are still open", len(all.open))
	}
}
