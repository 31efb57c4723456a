package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// receiver acks everything that arrives for identities, until the test ends.
func receiver(t *testing.T, c *client.Client, ids ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	joined, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- c.Receive(ctx, ids, func(context.Context, client.Message) error { return nil },
			client.OnJoined(func() { joined <- struct{}{} }))
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	select {
	case <-joined:
	case <-time.After(patience):
		t.Fatal("not attached in time")
	}
}

func TestMulticast(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	for _, id := range []string{"a", "b", "c"} {
		if _, err := c.Register(ctx, client.Registration{ID: id, Metadata: map[string]any{"room": "lab"}}); err != nil {
			t.Fatal(err)
		}
	}
	receiver(t, c, "a", "c")
	for _, row := range []struct {
		report client.Report
		want   []string
	}{
		{client.ReportAll, []string{"a", "b", "c"}},
		{client.ReportUndelivered, []string{"b"}},
		{client.ReportCounts, nil},
	} {
		r, err := c.Multicast(ctx, client.MulticastRequest{
			Filter: map[string]any{"room": "lab"}, Payload: []byte("hi"), ContentType: "text/plain",
			Delivery: client.AtLeastOnce, Timeout: 10 * time.Second, Report: row.report,
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.TargetCount != 3 || r.Delivered != 2 || r.Failed != 1 || r.Pending != 0 || r.TimedOut != 0 ||
			r.Ended != client.Complete || r.ID == "" || r.Elapsed <= 0 || r.Revision == 0 || len(r.Targets) != len(row.want) {
			t.Errorf("report %d: %+v", row.report, r)
			continue
		}
		for i, target := range r.Targets {
			if target.Identity != row.want[i] || target.Attempts != 1 {
				t.Errorf("report %d: target %+v, want %s", row.report, target, row.want[i])
			}
			if target.Identity == "b" {
				if target.Status != client.Failed || target.Reason != client.NoSubscriber || !errors.Is(target.Err, client.ErrNoSubscriber) {
					t.Errorf("b is %+v", target)
				}
			} else if target.Status != client.Delivered || target.Evidence != client.Acked || target.Err != nil || target.Latency <= 0 {
				t.Errorf("%s is %+v", target.Identity, target)
			}
		}
	}
	r, err := c.Multicast(ctx, client.MulticastRequest{Delivery: client.AtMostOnce})
	if err != nil || r.TargetCount != 3 || r.Targets[0].Evidence != client.Accepted {
		t.Errorf("at most once: %+v, %v", r, err)
	}
}
