package app_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/app"
)

// free returns the default configuration on free ports.
func free() app.Config {
	cfg := app.Default()
	cfg.Listen = app.Listen{GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0"}
	return cfg
}

// run starts a server and returns its addresses and what ends it.
func run(t *testing.T, cfg app.Config) (at app.Addresses, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan app.Addresses, 1)
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx, cfg, nil, func(a app.Addresses) { ready <- a }) }()
	select {
	case at = <-ready:
	case err := <-done:
		cancel()
		t.Fatalf("run: %v", err)
	}
	stopped := false
	var result error
	stop = func() error {
		if !stopped {
			stopped = true
			cancel()
			result = <-done
		}
		return result
	}
	t.Cleanup(func() { _ = stop() })
	return at, stop
}

func dial(t *testing.T, at string) patternpb.MulticastRegistryPatternClient {
	t.Helper()
	conn, err := grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return patternpb.NewMulticastRegistryPatternClient(conn)
}

func TestRunServesAndDrains(t *testing.T) {
	at, stop := run(t, free())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c := dial(t, at.GRPC)
	if _, err := c.Register(ctx, &patternpb.RegisterRequest{Identity: "dev-1"}); err != nil {
		t.Fatal(err)
	}
	stream, err := c.Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{
		Attach: &patternpb.Attach{Identities: []string{"dev-1"}},
	}}); err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.Recv(); err != nil || resp.GetAttached() == nil {
		t.Fatalf("got %v, %v, want attached", resp, err)
	}
	go func() {
		resp, err := stream.Recv()
		if err != nil || len(resp.GetMessages().GetMessages()) != 1 {
			t.Errorf("got %v, %v, want one message", resp, err)
			return
		}
		m := resp.GetMessages().GetMessages()[0]
		_ = stream.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: &patternpb.Acks{
			Acks: []*patternpb.Ack{{Identity: m.GetIdentity(), MessageId: m.GetMessageId()}},
		}}})
	}()
	result, err := c.Multicast(ctx, &patternpb.MulticastRequest{Payload: []byte("hello")})
	if err != nil || result.GetDeliveredCount() != 1 {
		t.Fatalf("got %v, %v, want one delivered", result, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.Recv(); err != nil || resp.GetClosing() == nil {
		t.Errorf("got %v, %v, want closing", resp, err)
	}
}
