package redis

import (
	"errors"
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// storeOverSource stores messages as enqueue.lua does, but as if over a while. KEYS as queue.lua; ARGV topic, how many, the ages of
// the oldest and the newest in ms, the width of a slice.
const storeOverSource = `
local time = redis.call('TIME')
local at, topic, n = time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1], tonumber(ARGV[2])
local entry
for i = 1, n do
	local ms = math.floor(at - ARGV[4] - (ARGV[3] - ARGV[4]) * (n - i) / n)
	entry = string.format('%.0f-%d', ms, i)
	redis.call('XADD', KEYS[1] .. topic, entry, 'i', 'id-' .. i - 1, 'f', string.rep('x', 300))
	redis.call('HSET', KEYS[2] .. topic, 'm' .. 'id-' .. i - 1, entry .. ' 256')
	redis.call('HINCRBY', KEYS[4], string.format('%.0f', math.floor(ms / ARGV[5])), 1)
end
redis.call('HSET', KEYS[2] .. topic, 'n', n, 'b', n * 256, 's', entry)
return 'ok'`

// storeOver stores messages of 256 bytes that came between two times ago.
func storeOver(t testing.TB, d *Durability, topic string, n int, oldest, newest time.Duration) {
	t.Helper()
	width := (d.cfg.MaxAge.Milliseconds() + slicesOfAge - 1) / slicesOfAge
	text(t, d.conn, "EVAL", storeOverSource, "4", d.keys[0], d.keys[1], d.keys[2], d.keys[3], topic, strconv.Itoa(n),
		strconv.FormatInt(oldest.Milliseconds(), 10), strconv.FormatInt(newest.Milliseconds(), 10), strconv.FormatInt(width, 10))
}

func backlogOf(t *testing.T, d *Durability) int {
	t.Helper()
	n, err := d.Backlog(t.Context())
	noError(t, err)
	return n
}

// depthOf returns the slices of the depth.
func depthOf(t *testing.T, d *Durability) map[string]int64 {
	t.Helper()
	depth, err := do(t, d.conn, "HGETALL", d.keys[3]).AsIntMap()
	noError(t, err)
	return depth
}

// TestPurgeCountsOff purges queues that reach over all slices, some, or one: each slice counts what is left of it.
func TestPurgeCountsOff(t *testing.T) {
	t.Parallel()
	for name, oldest := range map[string]time.Duration{
		"a day": DefaultMaxAge - time.Minute, "an hour": time.Hour, "a moment": time.Millisecond,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := durability(t, shared(t), DurabilityConfig{})
			kept, purged := mr.Topic(d.cfg.Namespace, "kept"), mr.Topic(d.cfg.Namespace, "purged")
			storeOver(t, d, kept, 500, DefaultMaxAge-time.Minute, 0)
			want := depthOf(t, d)
			storeOver(t, d, purged, 700, oldest, 0)
			if _, err := d.Withdraw(t.Context(), stored(d.cfg.Namespace, "purged", 50)); err != nil {
				t.Fatal(err)
			}
			send(t, d, mr.Message{Topic: purged, Identity: "purged", ID: "new"})
			if n := backlogOf(t, d); n != 500+700-50+1 {
				t.Errorf("%d are stored", n)
			}
			if n, err := d.Purge(t.Context(), purged); n != 700-50+1 || err != nil {
				t.Errorf("%d are purged, %v", n, err)
			}
			if got := depthOf(t, d); !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if n, err := d.Purge(t.Context(), kept); n != 500 || err != nil {
				t.Errorf("%d are purged, %v", n, err)
			}
			if left := keysOfNamespace(t, d); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
		})
	}
}

// TestPurgeAhead purges what is ahead of the clock, which was put back.
func TestPurgeAhead(t *testing.T) {
	t.Parallel()
	d := durability(t, shared(t), DurabilityConfig{})
	topic := mr.Topic(d.cfg.Namespace, "a")
	storeOver(t, d, topic, 20, -1000*time.Hour, -1000*time.Hour)
	send(t, d, mr.Message{Topic: topic, Identity: "a", ID: "new"})
	send(t, d, stored(d.cfg.Namespace, "b", 1)...)
	if n := backlogOf(t, d); n != 22 {
		t.Errorf("%d are stored", n)
	}
	if n, err := d.Purge(t.Context(), topic); n != 21 || err != nil {
		t.Errorf("%d are purged, %v", n, err)
	}
	if n, depth := backlogOf(t, d), depthOf(t, d); n != 1 || len(depth) != 1 {
		t.Errorf("%d are stored, %v", n, depth)
	}
}

// TestDepthForgets finds slices that are too old in the depth, and what is none: they do not count, and are removed when another
// slice begins. The depth expires soon after its youngest message, and not before. Another MaxAge counts anew.
func TestDepthForgets(t *testing.T) {
	t.Parallel()
	cfg := DurabilityConfig{Namespace: testenv.Prefix(t), MaxAge: time.Hour}
	d := durability(t, shared(t), cfg)
	for slice := range 300 {
		text(t, d.conn, "EVAL", "redis.call('HSET', KEYS[1], ARGV[1], 7) return 'ok'", "1", d.keys[3], strconv.Itoa(slice))
	}
	text(t, d.conn, "EVAL", "redis.call('HSET', KEYS[1], '9999999999999', -7) return 'ok'", "1", d.keys[3])
	if n := backlogOf(t, d); n != 0 {
		t.Errorf("%d are stored, none of which counts", n)
	}
	send(t, d, stored(cfg.Namespace, "a", 3)...)
	if n, depth := backlogOf(t, d), depthOf(t, d); n != 3 || len(depth) > 3 {
		t.Errorf("%d are stored, %v", n, depth)
	}
	ms, err := do(t, d.conn, "PTTL", d.keys[3]).AsInt64()
	if left := time.Duration(ms) * time.Millisecond; err != nil || left < time.Hour-time.Minute || left > time.Hour+time.Hour*9/256 {
		t.Errorf("expires in %v, %v", left, err)
	}
	cfg.MaxAge = time.Minute
	other := durability(t, shared(t), cfg)
	if n := backlogOf(t, other); n != 0 {
		t.Errorf("with another age %d are stored", n)
	}
	noError(t, do(t, d.conn, "HSET", d.keys[3], "x", "1").Error())
	if _, err := d.Backlog(t.Context()); !errors.Is(err, errReply) {
		t.Errorf("a field that is no slice: %v", err)
	}
}
