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
	if existed, err := r.Delete(t.Context(), "a", 0); !existed || err != nil {
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
		if existed, err := r.Delete(t.Context(), "a", 0); existed != want || err != nil {
			t.Errorf("delete %d: %v, %v", i, existed, err)
		}
		wantOnly(t, r)
	}
	if _, err := r.Renew(t.Context(), "a", 0); !errors.Is(err, mr.ErrNotFound) {
		t.Errorf("renew after delete: %v", err)
	}
	// Who registered before does not remove the one that has taken its place.
	before, after := put(t, r, identity("a"), mr.Create), put(t, r, identity("a"), mr.Replace)
	if before.Revision == 0 {
		return
	}
	if _, err := r.Renew(t.Context(), "a", 0); err != nil {
		t.Error(err)
	}
	for i, only := range []mr.Revision{before.Revision, after.Revision + 100, after.Revision, after.Revision} {
		if existed, err := r.Delete(t.Context(), "a", only); existed != (i == 2) || err != nil {
			t.Errorf("delete %d, of revision %d: %v, %v", i, only, existed, err)
		}
	}
	wantOnly(t, r)
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
				did, err := r.Delete(t.Context(), "a", 0)
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

// deleteOnlyContention lets the removal of one registration race with the next one: the next one stays, whoever is first.
func (s *registrySuite) deleteOnlyContention(t *testing.T) {
	r := s.open(t)
	for round := range 50 {
		first := put(t, r, mr.Identity{ID: "a", Metadata: map[string]any{"v": "old"}, TTL: time.Hour}, mr.Replace)
		if first.Revision == 0 {
			t.Skip("this registry keeps no revisions")
		}
		var racing sync.WaitGroup
		racing.Go(func() {
			if _, err := r.Delete(t.Context(), "a", first.Revision); err != nil {
				t.Error(err)
			}
		})
		next := mr.Identity{ID: "a", Metadata: map[string]any{"v": "new"}, TTL: time.Hour}
		second, err := r.Put(t.Context(), next, mr.Replace)
		racing.Wait()
		noError(t, err, "put")
		wantOnly(t, r, second)
		if existed, err := r.Delete(t.Context(), "a", first.Revision); existed || err != nil {
			t.Errorf("round %d: a late removal: %v, %v", round, existed, err)
		}
		wantOnly(t, r, second)
	}
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
			if existed, err := r.Delete(t.Context(), id, 0); !existed || err != nil {
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
