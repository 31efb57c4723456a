package slottest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// rich has every type of value, at several levels, with the numbers that get lost first.
func rich() map[string]any {
	return map[string]any{
		"null": nil, "yes": true, "no": false, "empty": "", "text": "héllo\n\"wörld\" \\ \x00 😀 \u2028",
		"zero": int64(0), "int": int64(-42), "beyond 2^53": int64(1<<53 + 1), "largest": int64(math.MaxInt64),
		"smallest": int64(math.MinInt64), "uint": uint64(1<<63 + 1), "largest uint": uint64(math.MaxUint64),
		"float": 0.1, "tiny": 5e-324, "huge": math.MaxFloat64, "whole float": 5.0, "negative": -2.5e-7,
		"list": []any{nil, true, int64(1), 0.5, "x", []any{}, []any{[]any{int64(1<<53 + 1)}}, map[string]any{"in": []any{}}},
		"object": map[string]any{
			"empty": map[string]any{}, "deep": map[string]any{"deeper": map[string]any{"deepest": []any{"end", uint64(math.MaxUint64)}}},
		},
	}
}

func (s *registrySuite) roundTrip(t *testing.T) {
	r := s.open(t)
	wantOnly(t, r)
	first := mr.Identity{ID: "first", Metadata: rich(), TTL: time.Minute}
	stored := put(t, r, first, mr.Create)
	if stored.ID != "first" || stored.TTL != time.Minute || stored.RegisteredAt.IsZero() {
		t.Errorf("put returns %+v", stored)
	}
	wantMetadata(t, stored, rich())
	wantOnly(t, r, stored)
	bare := put(t, r, mr.Identity{ID: "bare", TTL: mr.NoExpiry}, mr.Create)
	if bare.TTL != mr.NoExpiry || !bare.ExpiresAt.IsZero() || len(bare.Metadata) != 0 {
		t.Errorf("put without metadata and expiry returns %+v", bare)
	}
	wantOnly(t, r, stored, bare)
}

func (s *registrySuite) create(t *testing.T) {
	r := s.open(t)
	first := put(t, r, mr.Identity{ID: "a", Metadata: map[string]any{"n": int64(1)}, TTL: time.Hour}, mr.Create)
	second := mr.Identity{ID: "a", Metadata: map[string]any{"n": int64(2)}, TTL: time.Minute}
	if _, err := r.Put(t.Context(), second, mr.Create); !errors.Is(err, mr.ErrAlreadyExists) {
		t.Errorf("a second create: %v", err)
	}
	wantOnly(t, r, first)
	if existed, err := r.Delete(t.Context(), "a"); !existed || err != nil {
		t.Errorf("delete: %v, %v", existed, err)
	}
	wantOnly(t, r, put(t, r, second, mr.Create))
}

func (s *registrySuite) createContention(t *testing.T) {
	r := s.open(t)
	contend(t, r, r)
}

// contend lets 100 creates of one identity race, half of them through each view of the registry.
func contend(t *testing.T, a, b mr.Registry) {
	t.Helper()
	const contenders = 100
	for round := range 3 {
		id := fmt.Sprintf("prize-%d", round)
		var won, lost atomic.Int64
		var winner atomic.Pointer[mr.Identity]
		start := make(chan struct{})
		var all sync.WaitGroup
		for n := range contenders {
			r := a
			if n%2 == 1 {
				r = b
			}
			all.Go(func() {
				<-start
				mine := mr.Identity{ID: id, Metadata: map[string]any{"contender": int64(n)}, TTL: time.Hour}
				stored, err := r.Put(t.Context(), mine, mr.Create)
				switch {
				case err == nil:
					won.Add(1)
					winner.Store(&stored)
				case errors.Is(err, mr.ErrAlreadyExists):
					lost.Add(1)
				default:
					t.Errorf("contender %d: %v", n, err)
				}
			})
		}
		close(start)
		all.Wait()
		if won.Load() != 1 || lost.Load() != contenders-1 {
			t.Fatalf("%d won, %d lost", won.Load(), lost.Load())
		}
		for _, r := range []mr.Registry{a, b} {
			wantSame(t, scan(t, r, nil)[id], *winner.Load())
		}
	}
	wantCount(t, a, 3)
}

func (s *registrySuite) replace(t *testing.T) {
	r := s.open(t)
	first := put(t, r, mr.Identity{ID: "a", Metadata: map[string]any{"old": true, "both": "x"}, TTL: time.Hour}, mr.Replace)
	wantOnly(t, r, first)
	second := put(t, r, mr.Identity{ID: "a", Metadata: map[string]any{"new": true, "both": "y"}, TTL: time.Minute}, mr.Replace)
	wantOnly(t, r, second)
	if second.RegisteredAt.Before(first.RegisteredAt) {
		t.Errorf("replaced at %v, put at %v", second.RegisteredAt, first.RegisteredAt)
	}
	wantOnly(t, r, put(t, r, mr.Identity{ID: "a", TTL: mr.NoExpiry}, mr.Replace))
	wantOnly(t, r, put(t, r, mr.Identity{ID: "a", TTL: time.Minute}, mr.Replace))
}

// replaceIsWhole lets replaces and scans race: no scan sees a part of one put and a part of another.
func (s *registrySuite) replaceIsWhole(t *testing.T) {
	r := s.open(t)
	version := func(n int) mr.Identity {
		text := fmt.Sprint(n)
		return mr.Identity{ID: "a", Metadata: map[string]any{"n": int64(n), "text": text}, TTL: time.Hour + time.Duration(n)*time.Second}
	}
	put(t, r, version(0), mr.Create)
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	for w := range 4 {
		writers.Go(func() {
			for n := w * 100; n < w*100+100 && ctx.Err() == nil; n++ {
				if _, err := r.Put(ctx, version(n), mr.Replace); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	for range 50 {
		got, ok := scan(t, r, nil)["a"]
		n, _ := got.Metadata["n"].(int64)
		if !ok || got.TTL != version(int(n)).TTL || got.Metadata["text"] != fmt.Sprint(n) || len(got.Metadata) != 2 {
			t.Errorf("a scan sees %+v", got)
			break
		}
	}
	stop()
	writers.Wait()
	wantCount(t, r, 1)
}

func (s *registrySuite) remove(t *testing.T) {
	r := s.open(t)
	for i, want := range []bool{false, true, false, false} {
		if i == 1 {
			put(t, r, identity("a"), mr.Create)
		}
		if existed, err := r.Delete(t.Context(), "a"); existed != want || err != nil {
			t.Errorf("delete %d: %v, %v", i, existed, err)
		}
		wantOnly(t, r)
	}
	if _, err := r.Renew(t.Context(), "a", 0); !errors.Is(err, mr.ErrNotFound) {
		t.Errorf("renew after delete: %v", err)
	}
}

func (s *registrySuite) deleteContention(t *testing.T) {
	r := s.open(t)
	stays := put(t, r, identity("stays"), mr.Create)
	for range 3 {
		put(t, r, identity("a"), mr.Create)
		var existed atomic.Int64
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() {
				did, err := r.Delete(t.Context(), "a")
				if err != nil {
					t.Error(err)
				}
				if did {
					existed.Add(1)
				}
			})
		}
		all.Wait()
		if existed.Load() != 1 {
			t.Errorf("%d of 30 deletes removed it", existed.Load())
		}
	}
	wantOnly(t, r, stays)
}

// hostileIdentities puts, renews, replaces and deletes identities one at a time: none of it may touch another one.
func (s *registrySuite) hostileIdentities(t *testing.T) {
	r := s.open(t)
	ids := HostileIdentities()
	want := make(map[string]mr.Identity, len(ids))
	for _, id := range ids {
		want[id] = put(t, r, identity(id), mr.Create)
	}
	all := func() {
		t.Helper()
		list := make([]mr.Identity, 0, len(want))
		for _, w := range want {
			list = append(list, w)
		}
		wantOnly(t, r, list...)
	}
	all()
	for i, id := range ids {
		switch i % 3 {
		case 0:
			if existed, err := r.Delete(t.Context(), id); !existed || err != nil {
				t.Errorf("delete %q: %v, %v", id, existed, err)
			}
			delete(want, id)
		case 1:
			lease, err := r.Renew(t.Context(), id, 2*time.Hour)
			noError(t, err, fmt.Sprintf("renew %q", id))
			w := want[id]
			w.TTL, w.ExpiresAt = lease.TTL, lease.ExpiresAt
			want[id] = w
		case 2:
			want[id] = put(t, r, mr.Identity{ID: id, Metadata: map[string]any{"again": id}, TTL: time.Minute}, mr.Replace)
		}
	}
	all()
}

func (s *registrySuite) hostileMetadata(t *testing.T) {
	r := s.open(t)
	everything := map[string]any{}
	var want []mr.Identity
	for i, h := range hostileStrings() {
		everything[h] = h
		want = append(want, put(t, r, mr.Identity{
			ID: fmt.Sprintf("%d", i), TTL: time.Hour,
			Metadata: map[string]any{h: map[string]any{h: []any{h, map[string]any{h: h}}}, "v" + h: h},
		}, mr.Create))
		wantMetadata(t, want[i], map[string]any{h: map[string]any{h: []any{h, map[string]any{h: h}}}, "v" + h: h})
	}
	want = append(want, put(t, r, mr.Identity{ID: "everything", Metadata: everything, TTL: time.Hour}, mr.Create))
	wantMetadata(t, want[len(want)-1], everything)
	wantOnly(t, r, want...)
}

func (s *registrySuite) largeMetadata(t *testing.T) {
	r := s.open(t)
	nested := map[string]any{"end": int64(1<<53 + 1)}
	for range 30 {
		nested = map[string]any{"in": nested}
	}
	wide := make(map[string]any, 1000)
	for i := range 1000 {
		wide[fmt.Sprintf("key-%d", i)] = int64(i)
	}
	for id, metadata := range map[string]map[string]any{
		"deep": nested, "wide": wide, "long": {"text": strings.Repeat("0123456789abcdef", 1<<14)},
	} {
		stored := put(t, r, mr.Identity{ID: id, Metadata: metadata, TTL: time.Hour}, mr.Create)
		wantMetadata(t, stored, metadata)
		wantMetadata(t, scan(t, r, nil)[id], metadata)
	}
}

// metadataIsolation changes, at every level, maps that were handed over and handed out.
func (s *registrySuite) metadataIsolation(t *testing.T) {
	r := s.open(t)
	spoil := func(metadata map[string]any) {
		metadata["object"].(map[string]any)["deep"].(map[string]any)["deeper"].(map[string]any)["spoilt"] = true
		metadata["list"].([]any)[1] = "spoilt"
		metadata["list"].([]any)[7].(map[string]any)["in"] = "spoilt"
		delete(metadata, "text")
		metadata["spoilt"] = true
	}
	mine := rich()
	returned := put(t, r, mr.Identity{ID: "a", Metadata: mine, TTL: time.Hour}, mr.Create)
	spoil(mine)
	wantMetadata(t, returned, rich())
	wantMetadata(t, scan(t, r, nil)["a"], rich())
	spoil(returned.Metadata)
	first, second := scan(t, r, nil)["a"], scan(t, r, nil)["a"]
	spoil(first.Metadata)
	wantMetadata(t, second, rich())
	wantMetadata(t, scan(t, r, nil)["a"], rich())
	e, err := filter.Parse(`{"spoilt":true}`)
	noError(t, err, "parse")
	for id, i := range scan(t, r, e) {
		if filter.Match(e, i.Metadata) {
			t.Errorf("a filter sees what a caller did to the metadata of %q", id)
		}
	}
}

func (s *registrySuite) revisions(t *testing.T) {
	r := s.open(t)
	header, ok := r.(mr.Header)
	if !ok {
		if got := put(t, r, identity("a"), mr.Create); got.Revision != 0 {
			t.Errorf("a registry without revisions returns revision %d", got.Revision)
		}
		return
	}
	head := func() mr.Revision {
		t.Helper()
		revision, err := header.Head(t.Context())
		noError(t, err, "head")
		return revision
	}
	last := head()
	grown := func(what string, change func() mr.Revision) {
		t.Helper()
		revision := change()
		now := head()
		if now <= last || revision > now || revision != 0 && revision <= last {
			t.Errorf("%s: revision %d, head %d; the head was %d", what, revision, now, last)
		}
		last = now
	}
	same := func(what string, change func()) {
		t.Helper()
		change()
		if now := head(); now != last {
			t.Errorf("%s changes nothing, but the head goes from %d to %d", what, last, now)
		}
	}
	grown("create", func() mr.Revision { return put(t, r, identity("a"), mr.Create).Revision })
	grown("create another", func() mr.Revision { return put(t, r, identity("b"), mr.Create).Revision })
	grown("replace", func() mr.Revision { return put(t, r, identity("a"), mr.Replace).Revision })
	same("a refused create", func() { _, _ = r.Put(t.Context(), identity("a"), mr.Create) })
	same("a renewal in vain", func() { _, _ = r.Renew(t.Context(), "absent", time.Hour) })
	same("a deletion in vain", func() { _, _ = r.Delete(t.Context(), "absent") })
	same("a scan", func() { scan(t, r, nil) })
	grown("delete", func() mr.Revision {
		_, err := r.Delete(t.Context(), "a")
		noError(t, err, "delete")
		return 0
	})
	before := scan(t, r, nil)["b"]
	if _, err := r.Renew(t.Context(), "b", time.Minute); err != nil {
		t.Error(err)
	}
	if after := scan(t, r, nil)["b"]; after.Revision != before.Revision || after.Revision == 0 {
		t.Errorf("renewing takes the revision from %d to %d", before.Revision, after.Revision)
	}
	if now := head(); now < last {
		t.Errorf("the head goes back from %d to %d", last, now)
	}
}

func (s *registrySuite) ping(t *testing.T) { pingSlot(t, s.open(t)) }

// pingSlot checks the optional Pinger of any slot.
func pingSlot(t *testing.T, slot any) {
	t.Helper()
	p, ok := slot.(mr.Pinger)
	if !ok {
		return
	}
	if err := p.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := p.Ping(cancelled(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("ping, cancelled: %v", err)
	}
}

// quota lets contenders race for the last places.
func (s *registrySuite) quota(t *testing.T) {
	if s.OpenLimited == nil {
		t.Skip("RegistryOptions.OpenLimited is not set")
	}
	const limit = 10
	r := s.OpenLimited(t, limit)
	var won, refused atomic.Int64
	var all sync.WaitGroup
	for n := range 3 * limit {
		all.Go(func() {
			_, err := r.Put(t.Context(), identity(fmt.Sprintf("id-%d", n)), mr.PutMode(n%2))
			switch {
			case err == nil:
				won.Add(1)
			case errors.Is(err, mr.ErrQuota):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != limit || refused.Load() != 2*limit {
		t.Errorf("%d of %d places taken, %d refused", won.Load(), limit, refused.Load())
	}
	start := time.Now()
	for id := range scan(t, r, nil) {
		put(t, r, mr.Identity{ID: id, TTL: s.ShortestTTL}, mr.Replace)
	}
	end := time.Now()
	_, err := r.Put(t.Context(), identity("early"), mr.Create)
	switch inTime := time.Since(start) < s.ShortestTTL-s.ClockTolerance; {
	case err == nil && !inTime: // the machine is so slow that a place was free
		_, err = r.Delete(t.Context(), "early")
		noError(t, err, "delete")
	case !errors.Is(err, mr.ErrQuota):
		t.Errorf("one more: %v", err)
	}
	waitUntil(end.Add(s.ShortestTTL + s.ClockTolerance))
	for n := range limit {
		put(t, r, identity(fmt.Sprintf("next-%d", n)), mr.Create)
	}
	if _, err := r.Put(t.Context(), identity("new"), mr.Replace); !errors.Is(err, mr.ErrQuota) {
		t.Errorf("one more: %v", err)
	}
}

// pair looks at one registry as two processes do.
func (s *registrySuite) pair(t *testing.T) {
	if s.OpenPair == nil {
		t.Skip("RegistryOptions.OpenPair is not set")
	}
	a, b := s.OpenPair(t)
	contend(t, a, b)
	stored := put(t, a, identity("through a"), mr.Create)
	wantSame(t, scan(t, b, nil)["through a"], stored)
	lease, err := b.Renew(t.Context(), "through a", time.Minute)
	noError(t, err, "renew through b")
	stored.TTL, stored.ExpiresAt = lease.TTL, lease.ExpiresAt
	wantSame(t, scan(t, a, nil)["through a"], stored)
	if existed, err := b.Delete(t.Context(), "through a"); !existed || err != nil {
		t.Errorf("delete through b: %v, %v", existed, err)
	}
	if _, ok := scan(t, a, nil)["through a"]; ok {
		t.Error("a sees what b deleted")
	}
}

func (s *registrySuite) neighbours(t *testing.T) {
	if s.OpenNeighbours == nil {
		t.Skip("RegistryOptions.OpenNeighbours is not set")
	}
	a, b := s.OpenNeighbours(t)
	ofA := put(t, a, mr.Identity{ID: "same", Metadata: map[string]any{"of": "a"}, TTL: time.Hour}, mr.Create)
	wantOnly(t, b)
	ofB := put(t, b, mr.Identity{ID: "same", Metadata: map[string]any{"of": "b"}, TTL: time.Minute}, mr.Create)
	wantOnly(t, a, ofA)
	wantOnly(t, b, ofB)
	if existed, err := b.Delete(t.Context(), "same"); !existed || err != nil {
		t.Errorf("delete: %v, %v", existed, err)
	}
	wantOnly(t, a, ofA)
	wantOnly(t, b)
}
