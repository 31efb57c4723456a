package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// cutOff opens a slot whose process can be cut off for good, as kill -9 does: nothing of it reaches Redis any more.
func cutOff(t *testing.T, cfg DurabilityConfig) (*Durability, *testenv.Fault) {
	t.Helper()
	fault := testenv.NewFault(t, testenv.Redis(t).Addr)
	return durability(t, connect(t, Config{Host: fault.Addr, Timeout: 300 * time.Millisecond}), cfg), fault
}

// TestHolderDies cuts off the process that holds a topic: another one, which stands by, gets its messages when the lease has
// ended, and one that comes later too. When the first one is back it knows that it lost its topics, hands out nothing of what it
// had read, and stands by itself until the others have gone.
func TestHolderDies(t *testing.T) {
	t.Parallel()
	cfg := DurabilityConfig{Namespace: testenv.Prefix(t)}
	d, fault := cutOff(t, cfg)
	other := durability(t, shared(t), cfg)
	a, b := mr.Topic(cfg.Namespace, "a"), mr.Topic(cfg.Namespace, "b")
	holder, err := d.Consume(t.Context(), a, b)
	noError(t, err)
	defer holder.Close()
	send(t, other, stored(cfg.Namespace, "a", 3)...)
	send(t, other, stored(cfg.Namespace, "b", 2)...)
	got := receive(t, holder, 5)
	noError(t, d.Ack(t.Context(), []mr.Ack{{To: find(t, got, "a", 0).AckTo}})[0])
	standby, err := other.Consume(t.Context(), a)
	noError(t, err)
	fault.Cut()
	send(t, other, stored(cfg.Namespace, "a", 4)[1:]...) // two of them again, and a new one
	got = receive(t, standby, 3)
	for i, message := range got {
		if string(message.Payload) != strconv.Itoa(i+1) || message.Redelivered != (i < 2) {
			t.Errorf("message %d: %+v", i, message)
		}
	}
	late, err := other.Consume(t.Context(), b)
	noError(t, err)
	if got := receive(t, late, 2); !got[0].Redelivered || !got[1].Redelivered {
		t.Errorf("got %+v", got)
	}
	noError(t, other.Ack(t.Context(), []mr.Ack{{To: got[0].AckTo}})[0])
	fault.Heal()
	eventually(t, "the holder knows of its loss", func() bool { return session(d) == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if batch, err := holder.Next(ctx); err == nil {
		t.Errorf("a consumer that lost its topics got %+v", batch)
	}
	noError(t, standby.Close())
	noError(t, late.Remove(t.Context(), b))
	got = receive(t, holder, 4)
	for _, message := range got {
		if !message.Redelivered {
			t.Errorf("%s of %s is not marked", message.ID, message.Identity)
		}
	}
	noError(t, late.Close())
}

func session(d *Durability) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.session
}

// stored returns numbered messages for an identity.
func stored(namespace, identity string, n int) []mr.Message {
	messages := make([]mr.Message, n)
	for i := range messages {
		messages[i] = mr.Message{
			Topic: mr.Topic(namespace, identity), Identity: identity, ID: fmt.Sprint("id-", i), Payload: []byte(strconv.Itoa(i)),
			SentAt: time.UnixMilli(1),
		}
	}
	return messages
}

func send(t testing.TB, d *Durability, messages ...mr.Message) {
	t.Helper()
	noError(t, errors.Join(d.Enqueue(t.Context(), messages)...))
}

func find(t *testing.T, messages []mr.Message, identity string, n int) mr.Message {
	t.Helper()
	for _, message := range messages {
		if message.Identity == identity && string(message.Payload) == strconv.Itoa(n) {
			return message
		}
	}
	t.Fatalf("message %d of %s is not among %d", n, identity, len(messages))
	return mr.Message{}
}

// receive reads just that many messages.
func receive(t testing.TB, sub mr.Subscription, n int) []mr.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []mr.Message
	for len(got) < n {
		batch, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", len(got), n, err)
		}
		got = append(got, batch.Messages...)
	}
	if len(got) > n {
		t.Fatalf("%d messages, want %d", len(got), n)
	}
	return got
}

// TestLeaseLost has Redis forget a lease: what was held is claimed again, and what was not acked comes again.
func TestLeaseLost(t *testing.T) {
	t.Parallel()
	c := shared(t)
	d := durability(t, c, DurabilityConfig{})
	namespace := d.cfg.Namespace
	sub, err := d.Consume(t.Context(), mr.Topic(namespace, "a"), mr.Topic(namespace, "idle"))
	noError(t, err)
	defer sub.Close()
	send(t, d, stored(namespace, "a", 2)...)
	receive(t, sub, 2)
	d.mu.Lock()
	lease := d.lease()
	d.mu.Unlock()
	noError(t, do(t, c, "DEL", d.keys[2]+lease).Error())
	if got := receive(t, sub, 2); !got[0].Redelivered || !got[1].Redelivered {
		t.Errorf("got %+v", got)
	}
	noError(t, do(t, c, "DEL", d.keys[2]+d.name+"/2").Error()) // Add finds out by itself
	noError(t, sub.Add(t.Context(), mr.Topic(namespace, "late")))
	send(t, d, stored(namespace, "late", 1)...)
	send(t, d, stored(namespace, "idle", 1)...)
	if got := receive(t, sub, 4); session(d) != 3 {
		t.Errorf("session %d, got %+v", session(d), got)
	}
}

// TestLostNotices has notices not come: the next one tells of the gap, and else the next renewal.
func TestLostNotices(t *testing.T) {
	t.Parallel()
	d := durability(t, shared(t), DurabilityConfig{})
	namespace := d.cfg.Namespace
	sub, err := d.Consume(t.Context(), mr.Topic(namespace, "a"), mr.Topic(namespace, "b"))
	noError(t, err)
	defer sub.Close()
	listen := func(to func(string)) {
		d.lane.change([]string{d.channel("n:" + d.name)}, func(c *channel) { c.notices = to })
	}
	for _, later := range []bool{true, false} {
		lost := make(chan struct{}, 1)
		listen(func(string) { lost <- struct{}{} })
		send(t, d, stored(namespace, "a", 1)...)
		<-lost
		listen(d.onNotice)
		want := 1
		if later {
			send(t, d, stored(namespace, "b", 1)...)
			want++
		}
		for _, message := range receive(t, sub, want) {
			noError(t, d.Ack(t.Context(), []mr.Ack{{To: message.AckTo}})[0])
		}
	}
	for _, text := range []string{"", "x", "1", "1 2 3", "1 999 77 x", "7 1 1 x", "1 1000"} {
		d.onNotice(text)
	}
	d.onFree("nobody stands by")
}

// TestNoticesCutOff has connections for notices killed again and again while messages are stored: all come.
func TestNoticesCutOff(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	admin := connect(t, Config{Host: server.Addr})
	d := durability(t, connect(t, Config{Host: server.Addr}), DurabilityConfig{Namespace: "a"})
	const many = 40
	var topics []string
	for n := range many {
		topics = append(topics, mr.Topic("a", strconv.Itoa(n)))
	}
	sub, err := d.Consume(t.Context(), topics...)
	noError(t, err)
	defer sub.Close()
	for n := range many {
		noError(t, do(t, admin, "CLIENT", "KILL", "TYPE", "pubsub").Error())
		send(t, d, stored("a", strconv.Itoa(n), 1)...)
	}
	receive(t, sub, many)
	eventually(t, "the slot is well again", func() bool { return d.Ping(t.Context()) == nil })
}

// TestRedisRestarts kills Redis, with an append-only file, under a consumer and a sender: what Enqueue said is stored comes.
func TestRedisRestarts(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	d := durability(t, connect(t, Config{Host: server.Addr, Timeout: time.Second}), DurabilityConfig{Namespace: "a"})
	sub, err := d.Consume(t.Context(), mr.Topic("a", "a"))
	noError(t, err)
	defer sub.Close()
	messages := stored("a", "a", 400)
	taken := map[string]bool{}
	failures := 0
	for i, message := range messages {
		if i == 100 || i == 200 {
			server.Kill()
		}
		err := d.Enqueue(t.Context(), []mr.Message{message})[0]
		taken[message.ID] = err == nil
		if err != nil {
			failures++
			if !errors.Is(err, mr.ErrUnavailable) && !strings.Contains(err.Error(), "outcome unknown") {
				t.Errorf("enqueue without Redis: %v", err)
			}
		}
		if i == 110 || i == 210 {
			server.Start()
			eventually(t, "Redis is back", func() bool { return d.conn.Ping(t.Context()) == nil })
		}
	}
	if failures < 20 {
		t.Errorf("%d calls fail while Redis is down", failures)
	}
	delete(taken, "")
	maps.DeleteFunc(taken, func(_ string, ok bool) bool { return !ok })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(taken) > 0 {
		batch, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("%d messages are lost: %v", len(taken), err)
		}
		for _, message := range batch.Messages {
			delete(taken, message.ID)
		}
	}
}

// TestCutUnderLoad resets connections while messages are stored, read and acked, and consumers come and go: what was stored
// comes, and what was acked does not come again.
func TestCutUnderLoad(t *testing.T) {
	t.Parallel()
	cfg := DurabilityConfig{Namespace: testenv.Prefix(t)}
	d, fault := cutOff(t, cfg)
	topic := mr.Topic(cfg.Namespace, "a")
	var mu sync.Mutex
	want, acked := map[string]bool{}, map[string]bool{}
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range 20 {
			<-tick.C
			fault.Reset()
		}
	})
	all.Go(func() {
		for _, message := range stored(cfg.Namespace, "a", 600) {
			if d.Enqueue(ctx, []mr.Message{message})[0] == nil {
				mu.Lock()
				want[message.ID] = true
				mu.Unlock()
			}
		}
		last := mr.Message{Topic: topic, Identity: "a", ID: "last", Payload: []byte("last")}
		for ctx.Err() == nil && d.Enqueue(ctx, []mr.Message{last})[0] != nil { // one copy is kept, whatever became of the others
			continue
		}
	})
	for done := false; !done; {
		sub, err := d.Consume(ctx, topic)
		if err != nil {
			if ctx.Err() != nil {
				t.Fatal(err)
			}
			continue
		}
		for range 3 {
			batch, err := sub.Next(ctx)
			if err != nil {
				t.Fatalf("%d of %d messages: %v", len(acked), len(want), err)
			}
			for _, message := range batch.Messages {
				if acked[message.ID] {
					t.Errorf("%s was acked, and comes again", message.ID)
				}
				done = done || message.ID == "last"
				if d.Ack(ctx, []mr.Ack{{To: message.AckTo}})[0] == nil {
					acked[message.ID] = true
				}
			}
			if done {
				break
			}
		}
		noError(t, sub.Close())
	}
	all.Wait()
	rest, err := d.Stored(t.Context(), stored(cfg.Namespace, "a", 600))
	noError(t, err)
	for i, left := range rest {
		if id := fmt.Sprint("id-", i); want[id] && !left && !acked[id] {
			t.Logf("%s: its ack was made, and nobody was told", id)
		} else if left && acked[id] {
			t.Errorf("%s was acked, and is stored", id)
		}
	}
}

// TestStalledConsume gives up while Redis does not answer: nothing is held afterwards.
func TestStalledConsume(t *testing.T) {
	t.Parallel()
	cfg := DurabilityConfig{Namespace: testenv.Prefix(t)}
	d, fault := cutOff(t, cfg)
	other := durability(t, shared(t), cfg)
	topic := mr.Topic(cfg.Namespace, "a")
	sub, err := d.Consume(t.Context(), mr.Topic(cfg.Namespace, "b"))
	noError(t, err)
	send(t, other, stored(cfg.Namespace, "a", 1)...)
	fault.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := d.Consume(ctx, topic); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("consume: %v", err)
	}
	if err := sub.Add(t.Context(), topic); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("add: %v", err)
	}
	noError(t, sub.Remove(t.Context(), mr.Topic(cfg.Namespace, "b")))
	for name, err := range map[string]error{
		"ping":   d.Ping(t.Context()),
		"ack":    d.Ack(t.Context(), []mr.Ack{{To: "1-0 " + topic + " x"}})[0],
		"finish": d.Finish(t.Context(), mr.Record{ID: "x"}),
		"settle": d.Settle(t.Context(), []mr.Settlement{{ID: "x"}})[0],
	} {
		if !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.Enqueue(t.Context(), stored(cfg.Namespace, "x", 1))[0]; err == nil || errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("enqueue, whose outcome nobody knows: %v", err)
	}
	fault.Heal()
	late, err := other.Consume(t.Context(), topic, mr.Topic(cfg.Namespace, "b"))
	noError(t, err)
	send(t, other, stored(cfg.Namespace, "b", 1)...)
	receive(t, late, 2)
	noError(t, late.Close())
	noError(t, sub.Close())
}

// TestAbandonedClaim gives up a claim that Redis has made, without having heard of it: what a holder before had handed out is
// marked all the same.
func TestAbandonedClaim(t *testing.T) {
	t.Parallel()
	cfg := DurabilityConfig{Namespace: testenv.Prefix(t)}
	d, fault := cutOff(t, cfg)
	other := durability(t, shared(t), cfg)
	topic := mr.Topic(cfg.Namespace, "a")
	send(t, other, stored(cfg.Namespace, "a", 2)...)
	for range 3 {
		first, err := other.Consume(t.Context(), topic)
		noError(t, err)
		receive(t, first, 2)
		noError(t, first.Close())
		fault.Delay(30 * time.Millisecond) // there, and back
		ctx, cancel := context.WithTimeout(t.Context(), 45*time.Millisecond)
		_, err = d.Consume(ctx, topic)
		cancel()
		if err == nil {
			t.Error("a claim that takes 60 ms is heard of within 45")
		}
		fault.Heal()
		last, err := other.Consume(t.Context(), topic)
		noError(t, err)
		for _, message := range receive(t, last, 2) {
			if !message.Redelivered {
				t.Errorf("%s is not marked", message.ID)
			}
		}
		noError(t, last.Close())
	}
}

// TestManyConsumers has 1,000 consumers with a topic each, of which each gets its own.
func TestManyConsumers(t *testing.T) {
	t.Parallel()
	d := durability(t, shared(t), DurabilityConfig{})
	const many = 1000
	var messages []mr.Message
	var all sync.WaitGroup
	opened := make(chan struct{}, many)
	for n := range many {
		id := strconv.Itoa(n)
		messages = append(messages, stored(d.cfg.Namespace, id, 1)...)
		all.Go(func() {
			sub, err := d.Consume(t.Context(), mr.Topic(d.cfg.Namespace, id))
			opened <- struct{}{}
			if err != nil {
				t.Error(err)
				return
			}
			defer sub.Close()
			for batch := (mr.Batch{}); len(batch.Messages) == 0; {
				if batch, err = sub.Next(t.Context()); err != nil {
					t.Error(err)
					return
				}
				for _, message := range batch.Messages {
					if message.Identity != id {
						t.Errorf("%s gets what is for %s", id, message.Identity)
					}
				}
			}
		})
	}
	for range many {
		<-opened
	}
	send(t, d, messages...)
	all.Wait()
}

// TestDurabilityRights takes one right after the other from the Redis user: opening names it, and nothing is changed without.
func TestDurabilityRights(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	admin := connect(t, Config{Host: server.Addr})
	text(t, admin, "ACL", "SETUSER", "prism", "on", ">secret", "+@all", "~*", "&*")
	user := connect(t, Config{Host: server.Addr, Username: "prism", Password: "secret"})
	d := durability(t, user, DurabilityConfig{Namespace: "a"})
	kept, err := d.Consume(t.Context(), mr.Topic("a", "kept"))
	noError(t, err)
	defer kept.Close()
	send(t, d, stored("a", "a", 2)...)
	changes := map[string]func() error{
		"enqueue":  func() error { return d.Enqueue(t.Context(), stored("a", "kept", 1))[0] },
		"purge":    func() error { _, err := d.Purge(t.Context(), mr.Topic("a", "a")); return err },
		"withdraw": func() error { _, err := d.Withdraw(t.Context(), stored("a", "a", 1)); return err },
		"consume":  func() error { _, err := d.Consume(t.Context(), mr.Topic("a", "a")); return err },
		"open": func() error {
			_, err := OpenDurability(t.Context(), user, DurabilityConfig{Namespace: "a"})
			return err
		},
	}
	ledger := map[string]func() error{
		"begin":  func() error { _, _, err := d.Begin(t.Context(), mr.Record{ID: "a", Key: "k"}); return err },
		"settle": func() error { return d.Settle(t.Context(), []mr.Settlement{{ID: "a"}})[0] },
	}
	queue := strings.Fields("HMGET HSET HDEL PEXPIRE DEL XADD XRANGE XDEL XLEN EXISTS HINCRBY HGETALL PTTL PUBLISH")
	records := strings.Fields("GET SET ZADD ZCARD ZPOPMIN PTTL HGET HSET DEL PEXPIRE")
	without := func(command string, calls map[string]func() error, all bool) {
		t.Helper()
		before := queuesOf(t, admin)
		text(t, admin, "ACL", "SETUSER", "prism", "-"+command)
		defer text(t, admin, "ACL", "SETUSER", "prism", "+"+command)
		refused := 0
		for name, call := range calls {
			err := call()
			if err != nil {
				refused++
			}
			if (all || err != nil) && (!errors.Is(err, mr.ErrUnsupported) || !strings.Contains(strings.ToUpper(err.Error()), command)) {
				t.Errorf("%s without %s: %v", name, command, err)
			}
		}
		if refused == 0 {
			t.Errorf("nothing needs %s", command)
		}
		if after := queuesOf(t, admin); !maps.Equal(before, after) {
			t.Errorf("without %s something changes:\n%v\n%v", command, before, after)
		}
	}
	for _, command := range queue {
		without(command, changes, true)
	}
	without("XTRIM", map[string]func() error{"purge": changes["purge"], "open": changes["open"]}, true)
	for _, command := range records {
		without(command, ledger, false)
	}
}

// queuesOf returns what Redis holds of queues in the namespace "a".
func queuesOf(t *testing.T, c *Conn) map[string]string {
	t.Helper()
	all := state(t, c, "a")
	maps.DeleteFunc(all, func(key, _ string) bool { return !strings.Contains(key, ":q:") })
	return all
}

// TestDurabilityClosed closes a slot under its consumers.
func TestDurabilityClosed(t *testing.T) {
	t.Parallel()
	c := shared(t)
	d := durability(t, c, DurabilityConfig{})
	sub, err := d.Consume(t.Context(), mr.Topic(d.cfg.Namespace, "a"))
	noError(t, err)
	d.Close()
	d.Close()
	for {
		if _, err = sub.Next(t.Context()); err != nil {
			break
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("next: %v", err)
	}
	noError(t, sub.Close())
	if _, err := d.Consume(t.Context(), "x"); !errors.Is(err, io.EOF) {
		t.Errorf("consume: %v", err)
	}
	if n, err := do(t, c, "EXISTS", d.keys[2]+d.lease()).AsInt64(); n != 0 || err != nil {
		t.Errorf("the lease is there: %d, %v", n, err)
	}
}
