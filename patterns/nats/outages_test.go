package nats

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// away is longer than an outage must be, and than the leases in these tests last.
	away  = 3500 * time.Millisecond
	brief = 1500 * time.Millisecond // a TTL
)

// told keeps what is logged.
type told struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *told) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

// extensions is how many outages were logged.
func (l *told) extensions() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.all.String(), "leases are extended after an outage")
}

// watchful opens a registry that takes two seconds for an outage, and tells of it.
func watchful(t *testing.T, url, namespace string) (*Registry, *told) {
	t.Helper()
	log := &told{}
	c := opened(t, Config{Servers: []string{url}, Timeout: 30 * time.Second, Log: slog.New(slog.NewTextHandler(log, nil))})
	return registry(t, c, RegistryConfig{Namespace: namespace, OutageAfter: minOutageAfter}), log
}

// isLive asks for one identity in each way.
func isLive(t *testing.T, r *Registry, id string) bool {
	t.Helper()
	live, err := r.Live(within(t), []string{id})
	if err != nil {
		t.Fatal(err)
	}
	_, scanned := found(t, r)[id]
	if scanned && !live[0] {
		t.Errorf("%q is found after it was not live", id)
	}
	return scanned
}

// settled waits until a lease has ended, and a mark says that somebody was there afterwards.
func settled(t *testing.T, r *Registry, id string) {
	t.Helper()
	until(t, id+" has ended", func() bool { return !isLive(t, r, id) })
	ended := r.clock.estimate()
	until(t, "a mark", func() bool { return r.keeper.view.Load().seen.After(ended) })
}

// wantExtended fails the test unless what lives has a TTL from the last outage on, which is returned.
func wantExtended(t *testing.T, r *Registry, ids ...string) outage {
	t.Helper()
	all, last := found(t, r), r.keeper.known().last()
	_, end := last.span()
	for _, id := range ids {
		if i, ok := all[id]; !ok || i.ExpiresAt.Before(end.Add(i.TTL)) {
			t.Errorf("%q: %+v, after an outage until %v", id, i, end)
		}
	}
	return last
}

// extended reads a feed up to Synced, before which an Extend must come, and returns that. Identities that live do not end.
func (f *follower) extended(t *testing.T, live ...string) (extend mr.Change) {
	t.Helper()
	for {
		switch c := f.get(t); c.Kind {
		case mr.Extend:
			extend = c
		case mr.Synced:
			if extend.Kind == 0 {
				t.Error("Synced comes before Extend")
			}
			return extend
		case mr.Reset, mr.Delete, mr.Expire:
			if c.Kind == mr.Reset || slices.Contains(live, c.Identity.ID) {
				t.Fatalf("after an outage comes %+v", c)
			}
		}
	}
}

// TestOutageRestart has the servers down for longer than leases last. Of each way to find somebody absent one comes first.
func TestOutageRestart(t *testing.T) {
	for name, first := range map[string]func(t *testing.T, r *Registry) error{
		"create": func(t *testing.T, r *Registry) error {
			_, err := r.Put(within(t), mr.Identity{ID: "a", TTL: time.Hour}, mr.Create)
			if errors.Is(err, mr.ErrAlreadyExists) {
				return nil
			}
			return fmt.Errorf("created, %w", err)
		},
		"renew": func(t *testing.T, r *Registry) error {
			_, err := r.Renew(within(t), "a", 0)
			return err
		},
		"delete": func(t *testing.T, r *Registry) error {
			existed, err := r.Delete(within(t), "c", 0)
			if !existed {
				return fmt.Errorf("not there, %w", err)
			}
			return err
		},
		"find": func(t *testing.T, r *Registry) error {
			if !isLive(t, r, "a") {
				return errors.New("not live")
			}
			return nil
		},
		"feed": func(t *testing.T, r *Registry) error {
			f := follow(t, r, "")
			for c := f.next(t); c.Identity.ID != "a"; c = f.next(t) {
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := testenv.NewNATS(t, nil)
			r, log := watchful(t, n.URL, "restart")
			f := follow(t, r, "")
			f.until(t, mr.Synced)
			putOne(t, r, "gone", 50*time.Millisecond)
			settled(t, r, "gone")
			putOne(t, r, "a", brief)
			putOne(t, r, "b", brief)
			putOne(t, r, "c", brief)
			putOne(t, r, "endless", mr.NoExpiry)
			position := f.until(t, mr.Synced).Position
			n.Stop()
			f.failure(t)
			<-time.After(away)
			back := time.Now()
			n.Start()
			until(t, "the server is back", func() bool { return r.conn.nc.IsConnected() })
			if err := first(t, r); err != nil {
				t.Errorf("%s comes first: %v", name, err)
			}
			if last := wantExtended(t, r, "a", "b"); last.Until < back.UnixMicro() || last.Since > back.Add(-away).UnixMicro() {
				t.Errorf("the outage is %+v", last)
			}
			if isLive(t, r, "gone") {
				t.Error("what had ended before is live")
			}
			if extend := follow(t, r, position).extended(t, "a", "b"); extend.Until.Before(back) || extend.Since.After(back.Add(-away)) {
				t.Errorf("the feed tells %+v", extend)
			}
			until(t, "what nobody renews ends", func() bool { return !isLive(t, r, "b") })
			if log.extensions() != 1 {
				t.Errorf("%d outages in the log", log.extensions())
			}
		})
	}
}

// TestOutageStalled lets the network stand still for everybody, and go on, while a feed waits: it does not notice.
func TestOutageStalled(t *testing.T) {
	t.Parallel()
	fault := testenv.NewFault(t, strings.TrimPrefix(testenv.NATS(t).URL, "nats://"))
	r, _ := watchful(t, "nats://"+fault.Addr, testenv.Prefix(t))
	f := follow(t, r, "")
	f.until(t, mr.Synced)
	putOne(t, r, "a", brief)
	for c := f.until(t, mr.Put); c.Identity.ID != "a"; c = f.until(t, mr.Put) {
	}
	fault.Stall()
	<-time.After(away)
	for len(f.changes) > 0 {
		<-f.changes
	}
	back := time.Now()
	fault.Heal()
	if extend := f.extended(t, "a"); extend.Until.Before(back) || extend.Position == "" {
		t.Errorf("the feed tells %+v", extend)
	}
	wantExtended(t, r, "a")
}

// TestOutageOfOne cuts one process off from the servers, which another one reaches: whoever does not renew is gone.
func TestOutageOfOne(t *testing.T) {
	t.Parallel()
	url, namespace := testenv.NATS(t).URL, testenv.Prefix(t)
	fault := testenv.NewFault(t, strings.TrimPrefix(url, "nats://"))
	here, log := watchful(t, url, namespace)
	there, other := watchful(t, "nats://"+fault.Addr, namespace)
	putOne(t, there, "a", brief)
	fault.Cut()
	<-time.After(away)
	if isLive(t, here, "a") {
		t.Error("a lease lasts because one process was cut off")
	}
	fault.Heal()
	until(t, "the connection is back", func() bool { return there.Ping(within(t)) == nil })
	if isLive(t, there, "a") || log.extensions()+other.extensions() > 0 {
		t.Errorf("outages: %v", there.keeper.known())
	}
}

// TestOutageNobody has no process run for a while. Several come back at once: they find one outage.
func TestOutageNobody(t *testing.T) {
	t.Parallel()
	url, namespace := testenv.NATS(t).URL, testenv.Prefix(t)
	before, _ := watchful(t, url, namespace)
	putOne(t, before, "a", brief)
	head, err := before.Head(within(t))
	if err != nil {
		t.Fatal(err)
	}
	before.conn.Close()
	<-time.After(away)
	var all sync.WaitGroup
	found := make(chan int, 8)
	for range cap(found) {
		all.Go(func() {
			r, log := watchful(t, url, namespace)
			if !isLive(t, r, "a") {
				t.Error("a lease has ended while nobody ran")
			}
			found <- log.extensions()
		})
	}
	all.Wait()
	close(found)
	logged := 0
	for n := range found {
		logged += n
	}
	r, _ := watchful(t, url, namespace)
	if after, err := r.Head(within(t)); err != nil || after != head+1 || logged != 1 {
		t.Errorf("revision %d follows %d, %v; %d outages in the log", after, head, err, logged)
	}
}

// TestOutagesInARow has a second outage begin when leases last only because of the first.
func TestOutagesInARow(t *testing.T) {
	t.Parallel()
	n := testenv.NewNATS(t, nil)
	r, _ := watchful(t, n.URL, "flapping")
	f := follow(t, r, "")
	f.until(t, mr.Synced)
	const ttl = 5 * time.Second
	putOne(t, r, "a", brief)
	putOne(t, r, "b", ttl)
	position := f.until(t, mr.Synced).Position
	for round := range 3 {
		n.Stop()
		f.failure(t)
		<-time.After(away)
		r.keeper.turn <- struct{}{} // nobody can look
		n.Start()
		until(t, "the server is back", func() bool { return r.Ping(within(t)) == nil })
		f = follow(t, r, position)
		select {
		case c := <-f.changes:
			t.Errorf("before anybody has looked the feed tells %+v", c)
		case <-time.After(headEvery):
		}
		<-r.keeper.turn
		f.extended(t, "b")
		if round == 0 {
			wantExtended(t, r, "a", "b")
			putOne(t, r, "between", 50*time.Millisecond)
			settled(t, r, "between")
			settled(t, r, "a") // b lasts
		}
		position = f.until(t, mr.Synced).Position
	}
	wantExtended(t, r, "b")
	if isLive(t, r, "between") || isLive(t, r, "a") {
		t.Error("what had ended between two outages is live")
	}
	if known := r.keeper.known(); len(known) != 3 {
		t.Errorf("outages: %v", known)
	}
}

// TestOutageLateMark stores a mark that was sent long before: the network stood still, and nobody noticed.
func TestOutageLateMark(t *testing.T) {
	t.Parallel()
	r, _ := watchful(t, testenv.NATS(t).URL, testenv.Prefix(t))
	f := follow(t, r, "")
	f.until(t, mr.Synced)
	sent := r.clock.estimate().Add(-time.Minute)
	until(t, "the mark is stored", func() bool {
		m, err := r.keeper.read(within(t))
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(mark{Before: sent.UnixMicro()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.seen.write(within(t), r.mark, m.seq, nats.Header{}, data)
		return err == nil
	})
	until(t, "the outage is found", func() bool { return len(r.keeper.known()) > 0 })
	if c := f.next(t); c.Kind != mr.Extend || !c.Since.Equal(sent.Truncate(time.Microsecond)) || c.Until.Sub(sent) < time.Minute {
		t.Errorf("the feed tells %+v, the mark was sent at %v", c, sent)
	}
	settling := r.clock.estimate()
	until(t, "another mark", func() bool { return r.keeper.view.Load().seen.After(settling.Add(2 * markEvery)) })
	if known := r.keeper.known(); len(known) != 1 {
		t.Errorf("outages: %v", known)
	}
}

// TestMarks counts what several idle processes store in some seconds: about one mark for each, and no revisions.
func TestMarks(t *testing.T) {
	t.Parallel()
	url, namespace := testenv.NATS(t).URL, testenv.Prefix(t)
	var r *Registry
	for range 4 {
		r, _ = watchful(t, url, namespace)
		f := follow(t, r, "")
		f.until(t, mr.Synced)
	}
	began := time.Now()
	before, err := r.seen.info(within(t), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(5 * markEvery)
	after, err := r.seen.info(within(t), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if n, most := after.State.LastSeq-before.State.LastSeq, uint64(time.Since(began)/(markEvery*3/4))+1; n < 3 || n > most || after.State.Messages != 1 {
		t.Errorf("%d marks in %v, %d kept", n, time.Since(began), after.State.Messages)
	}
	for _, s := range []*stream{r.bucket, r.log} {
		if info, err := s.info(within(t), "", 0); err != nil || info.State.LastSeq != 0 {
			t.Errorf("%s has had %d messages, %v", s.name, info.State.LastSeq, err)
		}
	}
}

// TestBury has nobody read a feed: scans have the ends of leases written that the server would keep for an outage.
func TestBury(t *testing.T) {
	t.Parallel()
	r, err := openRegistry(within(t), opening(t, testenv.NATS(t).URL), RegistryConfig{Namespace: testenv.Prefix(t)}, time.Second, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		putOne(t, r, fmt.Sprint(n), 50*time.Millisecond)
	}
	until(t, "nothing is left", func() bool {
		if len(found(t, r)) > 0 {
			return false
		}
		info, err := r.bucket.info(within(t), "", 0)
		if err != nil {
			t.Fatal(err)
		}
		return info.State.Messages == 0
	})
}
