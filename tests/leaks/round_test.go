package leaks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/watch"
)

const (
	joiners = 10 // programs that join, each with a connection of its own
	each    = 20 // identities of each
)

// round lets clients come, do everything that clients do, and go: in an orderly manner, or cut off in the middle.
func (s *server) round(t *testing.T, number int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer s.reconfigured(t, false)
	s.reconfigured(t, true)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	var joined, got atomic.Int64
	for i := range joiners {
		running.Go(func() {
			c := s.dial(t)
			defer c.Close()
			var all []client.Registration
			for j := range each {
				all = append(all, client.Registration{
					ID: fmt.Sprintf("r%d-%d-%d", number, i, j), TTL: 2 * time.Second,
					Metadata: map[string]any{"group": i, "round": number, "note": strings.Repeat("x", 100)},
				})
			}
			options := []client.JoinOption{client.OnJoined(func() { joined.Add(1) })}
			if i%2 == 0 { // what is stored for them, and their leases, end by themselves
				options = append(options, client.WithoutUnregister())
			}
			err := c.JoinAll(ctx, all, func(context.Context, client.Message) error {
				got.Add(1)
				if i == 0 {
					return errors.New("refused") // it is stored, and comes again
				}
				return nil
			}, options...)
			if err != nil && ctx.Err() == nil {
				t.Errorf("join: %v", err)
			}
		})
	}
	watcher := s.dial(t)
	defer watcher.Close()
	running.Go(func() {
		for _, err := range watcher.Watch(ctx, client.WatchQuery{Filter: map[string]any{"round": number}}) {
			if err != nil {
				return
			}
		}
	})
	for _, path := range []string{"/identities:watch", "/identities/http-" + fmt.Sprint(number) + "/messages"} {
		running.Go(func() { s.listen(ctx, path) })
	}
	for deadline := time.Now().Add(patience); joined.Load() < joiners; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d have joined", joined.Load(), joiners)
		}
		<-time.After(time.Millisecond)
	}
	s.send(ctx, t, number)
	if got.Load() == 0 {
		t.Error("nothing was received")
	}
}

// fillLog makes changes until the log that watchers go on from is full: it would grow for a while.
func (s *server) fillLog(t *testing.T) {
	t.Helper()
	const changes = watch.DefaultLogEntries
	c := s.dial(t)
	defer c.Close()
	var all errgroup.Group
	all.SetLimit(64)
	for i := range changes {
		all.Go(func() error {
			_, err := c.Register(t.Context(), client.Registration{
				ID: fmt.Sprintf("fill-%d", i%100), TTL: 2 * time.Second, Mode: client.Replace,
				Metadata: map[string]any{"group": -1, "round": i, "note": strings.Repeat("x", 100)},
			})
			return err
		})
	}
	must(t, all.Wait())
}

// send multicasts and reads, waiting for answers or not.
func (s *server) send(ctx context.Context, t *testing.T, number int) {
	t.Helper()
	c := s.dial(t)
	defer c.Close()
	for i := range joiners {
		var result *client.Result
		err := errors.New("not tried")
		for try := 0; err != nil && try < 5; try++ { // a busy machine may need more time to look the targets up
			result, err = c.Multicast(ctx, client.MulticastRequest{
				Filter: map[string]any{"group": i, "round": number}, Payload: []byte("hello"), Timeout: 150 * time.Millisecond << try,
				IdempotencyKey: fmt.Sprintf("%d-%d-%d", number, i, try),
			})
		}
		if err != nil || result.TargetCount != each {
			t.Errorf("multicast: %v, %v", result, err)
		}
		hasty, leave := context.WithTimeout(ctx, time.Millisecond)
		_, _ = c.Multicast(hasty, client.MulticastRequest{Filter: map[string]any{"round": number}, Timeout: 100 * time.Millisecond})
		for range c.All(hasty, client.Query{PageSize: 5}) {
		}
		leave()
	}
	n := 0
	for _, err := range c.All(ctx, client.Query{Filter: map[string]any{"round": number}, PageSize: 50}) {
		if n++; err != nil {
			t.Errorf("enumerate: %v", err)
			break
		}
	}
	if n != joiners*each {
		t.Errorf("%d identities, want %d", n, joiners*each)
	}
}

// listen reads events over HTTP until ctx ends.
func (s *server) listen(ctx context.Context, path string) {
	url := "http://" + s.at.HTTP + "/v1/namespaces/" + s.namespace + path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		panic(err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
}

// reconfigured makes the server take a namespace up, or let it go, and waits until it has.
func (s *server) reconfigured(t *testing.T, second bool) {
	t.Helper()
	s.configure(t, second)
	s.reload <- syscall.SIGHUP
	c := s.dial(t)
	defer c.Close()
	for deadline := time.Now().Add(patience); ; {
		all, err := c.Namespaces(t.Context())
		must(t, err)
		if len(all) == 2 == second {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there are %d namespaces", len(all))
		}
		<-time.After(time.Millisecond)
	}
}

func (s *server) dial(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.Dial(s.at.GRPC, client.WithNamespace(s.namespace))
	must(t, err)
	return c
}
