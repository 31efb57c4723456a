package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// fill stores identities as Put would, many at once and without the log.
func fill(t testing.TB, c *Conn, r *Registry, all map[string]map[string]any) {
	t.Helper()
	now := time.Now().UnixMilli()
	var commands rueidis.Commands
	flush := func() {
		for _, reply := range c.write.DoMulti(t.Context(), commands...) {
			noError(t, reply.Error())
		}
		commands = commands[:0]
	}
	for id, metadata := range all {
		stored, err := encodeMetadata(metadata)
		noError(t, err)
		end := strconv.FormatInt(now+time.Hour.Milliseconds(), 10)
		commands = append(commands,
			c.write.B().Hset().Key(r.keys.of(id)).FieldValue().FieldValue("m", stored).FieldValue("t", "3600000").
				FieldValue("r", strconv.FormatInt(now, 10)).FieldValue("e", end).FieldValue("v", "7").Build(),
			c.write.B().Arbitrary("PEXPIREAT").Keys(r.keys.of(id)).Args(end).Build(),
			c.write.B().Arbitrary("ZADD").Keys(r.keys.leases).Args(end, mr.EncodeName(id)).Build())
		if len(commands) >= 3000 {
			flush()
		}
	}
	flush()
}

// numbered returns n identities, one in every hundred of which is in the lab.
func numbered(n int) map[string]map[string]any {
	all := make(map[string]map[string]any, n)
	for i := range n {
		room := fmt.Sprintf("room-%d", i%100)
		if i%100 == 7 {
			room = "lab"
		}
		all[fmt.Sprintf("device-%06d", i)] = map[string]any{
			"battery": float64(i%1000) / 1000, "firmware": fmt.Sprintf("1.%d.%d", i%7, i%13), "floor": int64(i % 10), "room": room,
			"tags": []any{"gps", fmt.Sprintf("rack-%d", i%50)},
		}
	}
	return all
}

// collect scans to the end, and fails the test when an identity comes twice.
func collect(t testing.TB, r *Registry, match *filter.Expr) map[string]mr.Identity {
	t.Helper()
	found := make(map[string]mr.Identity)
	for identity, err := range r.Scan(t.Context(), match) {
		noError(t, err)
		if _, twice := found[identity.ID]; twice {
			t.Fatalf("%q comes twice", identity.ID)
		}
		found[identity.ID] = identity
	}
	return found
}

func TestScanReadsTheLayout(t *testing.T) {
	c := shared(t)
	r := registry(t, c, RegistryConfig{})
	now := time.Now()
	end := now.Add(time.Minute)
	for _, row := range []struct{ id, m, t, e, score string }{
		{"lasting/é", `{"a":"\u0000i9007199254740993"}`, "-1", "0", "+inf"},
		{"leased", `{ "a": [] }`, "60000", strconv.FormatInt(end.UnixMilli(), 10), strconv.FormatInt(end.UnixMilli(), 10)},
		{"expired", `{}`, "60000", strconv.FormatInt(now.UnixMilli()-1, 10), strconv.FormatInt(now.UnixMilli()-1, 10)},
	} {
		noError(t, do(t, c, "HSET", r.keys.of(row.id), "m", row.m, "t", row.t, "r", "1700000000123", "e", row.e, "v", "42").Error())
		noError(t, do(t, c, "ZADD", r.keys.leases, row.score, mr.EncodeName(row.id)).Error())
	}
	noError(t, do(t, c, "ZADD", r.keys.leases, "+inf", "vanished").Error())
	for _, match := range []*filter.Expr{nil, parse(t, `{"zone.exists":false}`)} {
		found := collect(t, r, match)
		lasting, leased := found["lasting/é"], found["leased"]
		if len(found) != 2 || lasting.TTL != mr.NoExpiry || !lasting.ExpiresAt.IsZero() || lasting.Revision != 42 ||
			!lasting.RegisteredAt.Equal(time.UnixMilli(1700000000123)) || lasting.Metadata["a"] != int64(1<<53+1) {
			t.Errorf("found %+v", found)
		}
		if leased.TTL != time.Minute || leased.ExpiresAt.UnixMilli() != end.UnixMilli() || len(leased.Metadata["a"].([]any)) != 0 {
			t.Errorf("found %+v", leased)
		}
	}
}

func TestScanEmpty(t *testing.T) {
	r := registry(t, shared(t), RegistryConfig{})
	if found := collect(t, r, nil); len(found) != 0 {
		t.Errorf("found %v", found)
	}
}

func TestScanReportsWhatItCannotRead(t *testing.T) {
	for name, command := range map[string][]string{
		"metadata":      {"HSET", "id:broken", "m", `{"a":`},
		"expression":    {"HSET", "id:broken", "m", `{"a":"\u0000x"}`},
		"ttl":           {"HSET", "id:broken", "t", "soon"},
		"no revision":   {"HDEL", "id:broken", "v"},
		"no registered": {"HDEL", "id:broken", "r"},
		"name":          {"ZADD", "leases", "+inf", "a b"},
		"another type":  {"SET", "leases", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			c := shared(t)
			r := registry(t, c, RegistryConfig{})
			fill(t, c, r, map[string]map[string]any{"broken": {"a": "x"}, "whole": {"a": "x"}})
			tag := strings.TrimSuffix(r.keys.leases, "leases")
			noError(t, do(t, c, command[0], append([]string{tag + command[1]}, command[2:]...)...).Error())
			if name == "name" {
				fill(t, c, r, nil)
				noError(t, do(t, c, "HSET", r.keys.identity+"a b", "m", "{}", "t", "-1", "r", "1", "e", "0", "v", "1").Error())
			}
			for _, match := range []*filter.Expr{nil, parse(t, `{"z.exists":false}`)} {
				var failed error
				for identity, err := range r.Scan(t.Context(), match) {
					if failed != nil {
						t.Error("a scan goes on after its error")
					}
					if failed = err; err != nil && identity.ID != "" {
						t.Errorf("%v comes with %q", err, identity.ID)
					}
				}
				if failed == nil || !strings.HasPrefix(failed.Error(), "redis: scan: ") {
					t.Errorf("scan: %v", failed)
				}
			}
		})
	}
}

// batches runs a scan to its end, batch by batch, and tells each what it was left with and how many matches it gave.
func batches(t *testing.T, r *Registry, data string, each func(s *scan, matches int)) map[string]bool {
	t.Helper()
	s := newScan(r, data, asMap)
	found := make(map[string]bool)
	for !s.done() {
		matches, err := s.batch(t.Context())
		noError(t, err)
		for m := matches; len(m) > 0; m = m[matchFields:] {
			member, err := m[0].ToString()
			noError(t, err)
			found[member] = true
		}
		each(s, len(matches)/matchFields)
	}
	return found
}

// TestScanBudget checks that what is large is looked at a few at a time, and the rest handed in again.
func TestScanBudget(t *testing.T) {
	const n = 150
	c := shared(t)
	r := registry(t, c, RegistryConfig{})
	all := map[string]map[string]any{}
	for i := range n {
		all[fmt.Sprint(i)] = map[string]any{"n": int64(i), "text": strings.Repeat("x", 30_000)}
	}
	fill(t, c, r, all)
	data, exact := translate(parse(t, `{"n.gte":0}`))
	if data == "" || !exact {
		t.Fatalf("%s, %v", data, exact)
	}
	for _, row := range []struct {
		data string
		most int
	}{{"", 40}, {data, 3}} {
		calls, leftOver := 0, 0
		found := batches(t, r, row.data, func(s *scan, matches int) {
			calls++
			if len(s.rest) > 0 {
				leftOver++
			}
			if matches == 0 && !s.done() && len(s.rest) > 0 || matches > row.most {
				t.Errorf("a batch yields %d of 30 KB, and leaves %d", matches, len(s.rest))
			}
		})
		if len(found) != n || calls < n/row.most || leftOver == 0 {
			t.Errorf("%d found in %d batches, %d of which left something", len(found), calls, leftOver)
		}
	}
	// Small ones go by the hundred.
	r = registry(t, c, RegistryConfig{})
	fill(t, c, r, numbered(1000))
	calls := 0
	if found := batches(t, r, data, func(*scan, int) { calls++ }); len(found) != 0 || calls > 10 {
		t.Errorf("%d found in %d batches", len(found), calls)
	}
}

// TestScanTooCostly has metadata and filters that would hold Redis for long: they are taken for matches.
func TestScanTooCostly(t *testing.T) {
	c := shared(t)
	r := registry(t, c, RegistryConfig{})
	list := make([]any, 7500)
	for i := range list {
		list[i] = "a"
	}
	all := map[string]map[string]any{
		"long":  {"text": strings.Repeat("a", 30_000), "list": []any{}},
		"large": {"text": strings.Repeat("b", 80_000), "list": []any{}},
		"list":  {"text": "a", "list": list},
		"small": {"text": "a", "list": []any{"a"}},
	}
	fill(t, c, r, all)
	needle := strings.Repeat("a", 3000) + "b"
	for source, want := range map[string]string{
		`{"list":"b"}`:                                            "", // cannot be: "b" is nowhere in the text
		`{"list.lt":"a"}`:                                         "large list",
		`{"list.in":["b"]}`:                                       "large list",
		`{"list.type":"null"}`:                                    "large",
		`{"list.lt":"a","text":{"$ne":"a"}}`:                      "large list",
		`{"text.contains":"ab"}`:                                  "large",
		`{"text.contains":"aab"}`:                                 "",
		`{"text.contains":"` + needle + `"}`:                      "long",
		`{"$not":{"text.contains":"aaa"}}`:                        "large list small",
		`{"$or":[{"list":1},{"list.in":[2]}]}`:                    "large list",
		`{"$or":[{"text":1},{"text.contains":"` + needle + `"}]}`: "large long",
	} {
		e := parse(t, source)
		var got []string
		found := collect(t, r, e)
		for _, id := range []string{"large", "list", "long", "small"} {
			_, ok := found[id]
			if ok {
				got = append(got, id)
			}
			if filter.Match(e, all[id]) && !ok {
				t.Errorf("%.60s misses %s", source, id)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%.60s yields %v, want %s", source, got, want)
		}
	}
}

// TestScanAfterScriptFlush loses the script in the middle of a scan.
func TestScanAfterScriptFlush(t *testing.T) {
	c := connect(t, Config{Host: testenv.NewRedis(t).Addr})
	r := registry(t, c, RegistryConfig{})
	fill(t, c, r, numbered(3000))
	n := 0
	for _, err := range r.Scan(t.Context(), nil) {
		noError(t, err)
		if n++; n%1000 == 1 {
			noError(t, do(t, c, "SCRIPT", "FLUSH").Error())
		}
	}
	if n != 3000 {
		t.Errorf("%d found", n)
	}
}

// TestScanAcrossRestart restarts the server in the middle of a scan. The new one orders its tables by another seed: a cursor
// of the old one would pass over identities.
func TestScanAcrossRestart(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t, "--appendonly", "yes")
	c := connect(t, Config{Host: server.Addr})
	r := NewRegistry(c, RegistryConfig{Namespace: testenv.Prefix(t)})
	fill(t, c, r, numbered(5000))
	found := make(map[string]bool)
	for identity, err := range r.Scan(t.Context(), nil) {
		noError(t, err)
		if found[identity.ID] {
			t.Errorf("%s comes twice", identity.ID)
		}
		found[identity.ID] = true
		if len(found) == 1000 || len(found) == 2000 {
			server.Stop()
			server.Start()
			eventually(t, "the connection is back", func() bool { return c.Ping(t.Context()) == nil })
		}
	}
	if len(found) != 5000 {
		t.Errorf("%d found", len(found))
	}
}

// TestScanUnavailable stops the server in the middle of a scan.
func TestScanUnavailable(t *testing.T) {
	server := testenv.NewRedis(t)
	c := connect(t, Config{Host: server.Addr, Timeout: 200 * time.Millisecond})
	r := NewRegistry(c, RegistryConfig{Namespace: testenv.Prefix(t)})
	fill(t, c, r, numbered(3000))
	n, failed := 0, error(nil)
	for _, err := range r.Scan(t.Context(), nil) {
		if failed = err; err != nil {
			break
		}
		if n++; n == 1 {
			server.Kill()
		}
	}
	if !errors.Is(failed, mr.ErrUnavailable) || n >= 3000 {
		t.Errorf("after %d: %v", n, failed)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range r.Scan(ctx, nil) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("scan: %v", err)
		}
	}
}
