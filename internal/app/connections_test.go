package app

import (
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
	c := newConnections(t.Context(), slog.New(slog.DiscardHandler))
	defer c.close()
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
	if err != nil || named == here || len(c.embedded) != 1 {
		t.Errorf("%d embedded servers, %v", len(c.embedded), err)
	}
}
