package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// TestSweepRace has sweepers of many processes meet identities that are registered again as soon as they expire: what a
// registration returned is there until its lease ends.
func TestSweepRace(t *testing.T) {
	c := shared(t)
	r := unswept(t, c, RegistryConfig{})
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	for range 3 {
		all.Go(func() {
			for ctx.Err() == nil {
				if _, err := r.sweep(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	var rounds sync.WaitGroup
	for w := range 4 {
		rounds.Go(func() {
			id := fmt.Sprintf("id-%d", w)
			for range 100 {
				_, err := r.Put(ctx, mr.Identity{ID: id, TTL: 2 * time.Millisecond}, mr.Create)
				for errors.Is(err, mr.ErrAlreadyExists) {
					_, err = r.Put(ctx, mr.Identity{ID: id, TTL: time.Hour}, mr.Create)
				}
				if err != nil {
					t.Error(err)
					return
				}
				stored, err := r.Put(ctx, mr.Identity{ID: id, TTL: time.Hour}, mr.Replace)
				if err != nil {
					t.Error(err)
					return
				}
				if existed, err := r.Delete(ctx, id, stored.Revision); !existed || err != nil {
					t.Errorf("%s at revision %d: %v, %v", id, stored.Revision, existed, err)
				}
			}
		})
	}
	rounds.Wait()
	stop()
	all.Wait()
	// The log is without a gap, and every identity is gone by a delete or an expiry in the end.
	state := map[string]string{}
	for i, entry := range entries(t, r) {
		fields := strings.Fields(entry)
		if fields[0] != strconv.Itoa(i+1) {
			t.Fatalf("entry %d is %q", i+1, entry)
		}
		if kind, was := fields[1], state[fields[2]]; (kind == "x" || kind == "d") && was != "p" {
			t.Fatalf("%q after %q", entry, was)
		}
		state[fields[2]] = fields[1]
	}
}

// TestSweep has many identities expire at once: sweepers remove and log each of them once.
func TestSweep(t *testing.T) {
	c := shared(t)
	r := unswept(t, c, RegistryConfig{})
	const many = 1050
	for n := range many {
		put(t, r, fmt.Sprintf("id-%d", n), time.Millisecond)
	}
	stays := put(t, r, "stays", time.Hour)
	sweeping(t, r)
	sweeping(t, NewRegistry(shared(t), r.cfg))
	eventually(t, "all is swept", func() bool {
		n, err := do(t, c, "ZCARD", r.keys.leases).AsInt64()
		noError(t, err)
		return n == 1
	})
	if head, err := r.Head(t.Context()); head != 2*many+1 || err != nil {
		t.Errorf("head %d, %v", head, err)
	}
	if existed, err := r.Delete(t.Context(), "stays", stays.Revision); !existed || err != nil {
		t.Errorf("what stays: %v, %v", existed, err)
	}
}

// TestSweepBatch has more identities due than one sweep removes.
func TestSweepBatch(t *testing.T) {
	t.Parallel()
	c := shared(t)
	r := unswept(t, c, RegistryConfig{})
	for n := range 2*sweepBatch + 50 {
		put(t, r, fmt.Sprintf("id-%d", n), time.Millisecond)
	}
	eventually(t, "all have expired", func() bool {
		n, err := r.Count(t.Context())
		noError(t, err)
		return n == 0
	})
	for left := int64(2*sweepBatch + 50); left > 0; {
		want := min(left, 100)
		swept, err := r.sweep(t.Context())
		noError(t, err)
		n, err := do(t, c, "ZCARD", r.keys.leases).AsInt64()
		noError(t, err)
		if int64(swept.met) != want || n != left-want {
			t.Fatalf("a sweep removes %d of %d, and tells %d", left-n, left, swept.met)
		}
		left = n
	}
	if swept, err := r.sweep(t.Context()); swept.met != 0 || err != nil {
		t.Errorf("with nothing left it removes %d, %v", swept.met, err)
	}
}

// lines is what a log writes, line by line, safe to read meanwhile.
type lines struct {
	mu   sync.Mutex
	text []string
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, string(p))
	return len(p), nil
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.text)
}

// TestSweepLog takes the right to sweep away and gives it back: the log hears of both, once, whatever the number of shards.
func TestSweepLog(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	admin := connect(t, Config{Host: server.Addr})
	for user, shards := range map[string]int{"one": 1, "three": 3} {
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			text(t, admin, "ACL", "SETUSER", user, "on", ">secret", "+@all", "-zrange", "~*", "&*")
			log := &lines{}
			r, err := OpenRegistry(connect(t, Config{Host: server.Addr, Username: user, Password: "secret"}), RegistryConfig{
				Namespace: user, Shards: shards, Log: slog.New(slog.NewTextHandler(log, nil)),
			})
			noError(t, err)
			sweeping(t, r)
			sweepers := []*Registry{}
			if s, ok := r.(*Sharded); ok {
				sweepers = s.shards
			} else {
				sweepers = append(sweepers, r.(*Registry))
			}
			failing := func() int {
				l := sweepers[0].sweeps
				l.mu.Lock()
				defer l.mu.Unlock()
				return l.failing
			}
			eventually(t, "all sweepers fail", func() bool { return failing() == shards })
			got := log.all()
			if len(got) != 1 || !strings.Contains(got[0], "level=WARN") || !strings.Contains(got[0], "redis: sweep: ") ||
				!strings.Contains(got[0], "ZRANGE") || !strings.Contains(got[0], "namespace="+user) {
				t.Errorf("the log has %q", got)
			}
			text(t, admin, "ACL", "SETUSER", user, "+zrange")
			eventually(t, "all sweepers work", func() bool { return failing() == 0 })
			if got := log.all(); len(got) != 2 || !strings.Contains(got[1], "level=INFO") || !strings.Contains(got[1], "works again") {
				t.Errorf("the log has %q", got)
			}
		})
	}
}

// TestSweepLogCounts has a sweeper end that fails, while another one goes on.
func TestSweepLogCounts(t *testing.T) {
	log := &lines{}
	l := &sweepLog{log: slog.New(slog.NewTextHandler(log, nil))}
	l.note(nil, nil)
	l.note(nil, errReply)
	l.note(errReply, errReply)
	l.note(nil, errReply)
	l.leave(errReply)
	l.leave(nil)
	if got := log.all(); len(got) != 1 {
		t.Errorf("the log has %q", got)
	}
	l.note(errReply, nil)
	if got := log.all(); len(got) != 2 || l.failing != 0 {
		t.Errorf("%d fail, and the log has %q", l.failing, got)
	}
}
