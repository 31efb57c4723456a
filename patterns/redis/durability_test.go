package redis

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// durability opens a slot that ends with the test.
func durability(t testing.TB, c *Conn, cfg DurabilityConfig) *Durability {
	t.Helper()
	if cfg.Namespace == "" {
		cfg.Namespace = testenv.Prefix(t)
	}
	d, err := OpenDurability(t.Context(), c, cfg)
	noError(t, err)
	t.Cleanup(d.Close)
	return d
}

func TestDurability(t *testing.T) {
	t.Parallel()
	slottest.Durability(t, func(t *testing.T) mr.Durability {
		return durability(t, shared(t), DurabilityConfig{MaxMessages: 100, MaxBytes: 2 << 20})
	}, slottest.DurabilityOptions{
		QueueBound: 100, MaxPayload: 2 << 20, MaxBytes: 2 << 20,
		OpenPair: func(t *testing.T) (a, b mr.Durability) {
			cfg := DurabilityConfig{Namespace: testenv.Prefix(t)}
			return durability(t, shared(t), cfg), durability(t, shared(t), cfg)
		},
		OpenAged: func(t *testing.T, maxAge time.Duration) mr.Durability {
			return durability(t, shared(t), DurabilityConfig{MaxAge: maxAge, MaxMessages: 100})
		},
	})
}

// durabilityOn runs the suite on some other Redis, without what takes its time.
func durabilityOn(t *testing.T, where Config) {
	t.Helper()
	open := func(t *testing.T, cfg DurabilityConfig) mr.Durability { return durability(t, connect(t, where), cfg) }
	slottest.Durability(t, func(t *testing.T) mr.Durability { return open(t, DurabilityConfig{MaxMessages: 100}) },
		slottest.DurabilityOptions{
			Brief: where.Cluster, QueueBound: 100, MaxPayload: MaxPayload,
			OpenPair: func(t *testing.T) (a, b mr.Durability) {
				cfg := DurabilityConfig{Namespace: testenv.Prefix(t)}
				return open(t, cfg), open(t, cfg)
			},
		})
}

func TestDurabilityConfig(t *testing.T) {
	t.Parallel()
	noError(t, DurabilityConfig{}.Validate())
	for field, cfg := range map[string]DurabilityConfig{
		"max_messages": {MaxMessages: -1}, "max_bytes": {MaxBytes: -1}, "max_age": {MaxAge: -1}, "retention": {Retention: time.Microsecond},
		"max_multicasts": {MaxMulticasts: -1},
	} {
		var bad *mr.InvalidError
		if err := cfg.Validate(); !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%s: %v", field, err)
		}
		if _, err := OpenDurability(t.Context(), shared(t), cfg); !errors.Is(err, mr.ErrInvalid) {
			t.Errorf("open with a bad %s: %v", field, err)
		}
	}
}

// TestQueueBytes fills a queue by its bytes.
func TestQueueBytes(t *testing.T) {
	t.Parallel()
	d := durability(t, shared(t), DurabilityConfig{MaxBytes: 100})
	messages := stored(d.cfg.Namespace, "a", 5)
	for i, size := range []int{60, 40, 1, 0, 101} {
		messages[i].Payload = make([]byte, size)
	}
	want := []error{nil, nil, mr.ErrQueueFull, nil, mr.ErrTooLarge}
	for i, err := range d.Enqueue(t.Context(), messages) {
		if !errors.Is(err, want[i]) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if ok, err := d.Withdraw(t.Context(), messages[1:2]); err != nil || !ok[0] {
		t.Errorf("withdraw: %v, %v", ok, err)
	}
	messages[2].Payload = make([]byte, 41)
	if err := d.Enqueue(t.Context(), messages[2:3])[0]; !errors.Is(err, mr.ErrQueueFull) {
		t.Errorf("one byte more than there is room for: %v", err)
	}
	messages[2].Payload = make([]byte, 40)
	send(t, d, messages[2])
}

// keysOfNamespace returns the names of all keys but leases.
func keysOfNamespace(t *testing.T, d *Durability) []string {
	t.Helper()
	keys, err := do(t, d.conn, "KEYS", d.tag+"*").AsStrSlice()
	noError(t, err)
	return slices.DeleteFunc(keys, func(key string) bool { return strings.HasPrefix(key, d.keys[2]) })
}

// TestTooOld has messages become too old, some of them and all, before and after they were yielded: they are gone for everybody,
// make room, are counted to the next consumer once, and leave nothing behind.
func TestTooOld(t *testing.T) {
	t.Parallel()
	d := durability(t, shared(t), DurabilityConfig{MaxAge: 300 * time.Millisecond, MaxMessages: 3})
	namespace := d.cfg.Namespace
	topic := mr.Topic(namespace, "a")
	messages := stored(namespace, "a", 6)
	gone := func(which ...mr.Message) {
		t.Helper()
		eventually(t, "messages become too old", func() bool {
			is, err := d.Stored(t.Context(), which)
			noError(t, err)
			return !slices.Contains(is, true)
		})
	}
	send(t, d, messages[:3]...)
	gone(messages[:3]...)
	send(t, d, messages[3]) // all of them are too old now
	sub, err := d.Consume(t.Context(), topic)
	noError(t, err)
	batch, err := sub.Next(t.Context())
	noError(t, err)
	if batch.Dropped != 3 || len(batch.Messages) != 1 || batch.Messages[0].ID != "id-3" || batch.Messages[0].Redelivered {
		t.Errorf("got %+v", batch)
	}
	eventually(t, "the yielded one is old, but not too old", func() bool {
		n, err := do(t, d.conn, "PTTL", d.keys[0]+topic).AsInt64()
		noError(t, err)
		return n < 1000+150
	})
	send(t, d, messages[4])
	gone(messages[3])
	send(t, d, messages[5]) // one of two is too old now
	var all mr.Batch
	for len(all.Messages) < 2 || all.Dropped < 1 {
		batch, err := sub.Next(t.Context())
		noError(t, err)
		all.Messages, all.Dropped = append(all.Messages, batch.Messages...), all.Dropped+batch.Dropped
	}
	if all.Dropped != 1 || len(all.Messages) != 2 {
		t.Errorf("got %+v", all)
	}
	gone(messages...)
	for _, call := range []func() (bool, error){
		func() (bool, error) { n, err := d.Purge(t.Context(), topic); return n > 0, err },
		func() (bool, error) {
			is, err := d.Withdraw(t.Context(), messages)
			return slices.Contains(is, true), err
		},
	} {
		if found, err := call(); found || err != nil {
			t.Errorf("finds something too old: %v, %v", found, err)
		}
	}
	noError(t, sub.Close())
	eventually(t, "nothing is left", func() bool { return len(keysOfNamespace(t, d)) == 0 })
}

// TestCountKept has all messages of an idle queue become too old, its stream included: the count is there.
func TestCountKept(t *testing.T) {
	t.Parallel()
	d := durability(t, shared(t), DurabilityConfig{MaxAge: 20 * time.Millisecond})
	topic := mr.Topic(d.cfg.Namespace, "a")
	send(t, d, stored(d.cfg.Namespace, "a", 3)...)
	for _, key := range []string{d.keys[0] + topic, d.keys[1] + topic} {
		if n, err := do(t, d.conn, "PTTL", key).AsInt64(); n <= 0 || err != nil {
			t.Errorf("%s expires in %d ms, %v", key, n, err)
		}
	}
	eventually(t, "the stream is gone", func() bool {
		n, err := do(t, d.conn, "EXISTS", d.keys[0]+topic).AsInt64()
		noError(t, err)
		return n == 0
	})
	sub, err := d.Consume(t.Context(), topic)
	noError(t, err)
	batch, err := sub.Next(t.Context())
	noError(t, err)
	if batch.Dropped != 3 || len(batch.Messages) > 0 || len(batch.CaughtUp) != 1 {
		t.Errorf("got %+v", batch)
	}
	noError(t, sub.Close())
	eventually(t, "nothing is left", func() bool { return len(keysOfNamespace(t, d)) == 0 })
}

// TestByHand has others at the keys: what is nothing of ours is passed over, a stream that is gone is counted, and scripts that
// were flushed are loaded again.
func TestByHand(t *testing.T) {
	t.Parallel()
	c := connect(t, Config{Host: testenv.NewRedis(t).Addr, Timeout: time.Minute}) // one call stores thousands
	d := durability(t, c, DurabilityConfig{})
	namespace := d.cfg.Namespace
	topic := mr.Topic(namespace, "a")
	messages := stored(namespace, "a", 3)
	send(t, d, messages[0])
	text(t, c, "XADD", d.keys[0]+topic, "*", "i", "x", "f", "nothing of ours")
	since := time.Now()
	eventually(t, "it is another millisecond", func() bool { return time.Since(since) > 2*time.Millisecond })
	send(t, d, messages[1])
	noError(t, do(t, c, "SCRIPT", "FLUSH").Error())
	sub, err := d.Consume(t.Context(), topic)
	noError(t, err)
	defer sub.Close()
	noError(t, do(t, c, "SCRIPT", "FLUSH").Error())
	if got := receive(t, sub, 2); got[0].ID != "id-0" || got[1].ID != "id-1" {
		t.Errorf("got %+v", got)
	}
	noError(t, do(t, c, "DEL", d.keys[0]+topic).Error())
	send(t, d, stored(namespace, "b", 1)...)
	d.missed()
	d.mu.Lock()
	d.consumers[1].topics[topic].poke()
	d.mu.Unlock()
	batch, err := sub.Next(t.Context())
	noError(t, err)
	for batch.Dropped == 0 {
		batch, err = sub.Next(t.Context())
		noError(t, err)
	}
	if batch.Dropped != 2 {
		t.Errorf("got %+v", batch)
	}
	for range 2 * (scriptsAtOnce + 1) { // several pipelines
		messages = append(messages, stored(namespace, strconv.Itoa(len(messages)), messagesAtOnce)...)
	}
	noError(t, do(t, c, "SCRIPT", "FLUSH").Error())
	send(t, d, messages...)
}

// TestTenThousandStored attaches a consumer to 10,000 topics, and lets another one stand by.
func TestTenThousandStored(t *testing.T) {
	t.Parallel()
	cfg := DurabilityConfig{Namespace: testenv.Prefix(t)}
	patient := Config{Host: testenv.Redis(t).Addr, Timeout: time.Minute} // one call stores them all
	d, other := durability(t, connect(t, patient), cfg), durability(t, connect(t, patient), cfg)
	const many = 10_000
	var topics []string
	var messages []mr.Message
	for n := range many {
		messages = append(messages, stored(cfg.Namespace, strconv.Itoa(n), 1)...)
		topics = append(topics, messages[n].Topic)
	}
	start := time.Now()
	sub, err := d.Consume(t.Context(), topics...)
	noError(t, err)
	t.Logf("consumed after %v", time.Since(start))
	standby, err := other.Consume(t.Context(), topics...)
	noError(t, err)
	defer standby.Close()
	start = time.Now()
	send(t, other, messages...)
	t.Logf("stored after %v", time.Since(start))
	receive(t, sub, many)
	t.Logf("received after %v", time.Since(start))
	start = time.Now()
	noError(t, sub.Close())
	got := receive(t, standby, many)
	t.Logf("received by who stood by after %v", time.Since(start))
	acks := make([]mr.Ack, many)
	for i, message := range got {
		acks[i] = mr.Ack{To: message.AckTo}
		if !message.Redelivered {
			t.Fatalf("%+v is not marked", message)
		}
	}
	noError(t, errors.Join(d.Ack(t.Context(), acks)...))
	is, err := d.Stored(t.Context(), messages)
	noError(t, err)
	if slices.Contains(is, true) {
		t.Error("some are stored still")
	}
	noError(t, standby.Close())
	if left := keysOfNamespace(t, d); len(left) > 0 {
		t.Errorf("%d keys are left, %q first", len(left), left[0])
	}
}
