package nats

import (
	"context"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

const patience = 20 * time.Second

// opened returns a connection that ends with the test.
func opened(t testing.TB, cfg Config) *Conn {
	t.Helper()
	c, err := Open(within(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func opening(t testing.TB, urls ...string) *Conn {
	t.Helper()
	return opened(t, Config{Servers: urls})
}

// within returns a context that ends with the test or when the patience is used up.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func messaging(c *Conn) *Messaging { return NewMessaging(c, MessagingConfig{Buffer: 256}) }

func TestMessaging(t *testing.T) {
	t.Parallel()
	url := testenv.NATS(t).URL
	slottest.Messaging(t, func(t *testing.T) mr.Messaging { return messaging(opening(t, url)) }, slottest.MessagingOptions{
		Buffer: 256, MaxPayload: opening(t, url).MaxPayload(),
		OpenPair: func(t *testing.T) (a, b mr.Messaging) {
			return messaging(opening(t, url)), messaging(opening(t, url))
		},
	})
}

func TestMessagingEmbedded(t *testing.T) {
	t.Parallel()
	server, err := StartEmbedded(within(t), EmbeddedConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	open := func(t *testing.T) *Messaging {
		c, err := server.Connect(within(t), Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return messaging(c)
	}
	slottest.Messaging(t, func(t *testing.T) mr.Messaging { return open(t) }, slottest.MessagingOptions{
		Buffer: 256, MaxPayload: DefaultMaxPayload - headerReserve,
		OpenPair: func(t *testing.T) (a, b mr.Messaging) { return open(t), open(t) },
	})
}
