package acceptance

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

func TestRegisterIdentity(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		metadata := map[string]any{
			"status": "online", "floor": 3, "load": 0.25, "ok": true, "gone": nil,
			"tags": []any{"a", "b"}, "position": map[string]any{"lat": 1.35, "lon": 103.99},
		}
		before := time.Now()
		stored, err := p.Register(t.Context(), client.Registration{ID: "dev-1", Metadata: metadata, TTL: time.Minute})
		must(t, err)
		if stored.ID != "dev-1" || stored.TTL != time.Minute || stored.Revision == 0 ||
			stored.RegisteredAt.Before(before.Add(-clockSkew)) || stored.ExpiresAt.Sub(stored.RegisteredAt) != time.Minute {
			t.Errorf("stored %+v", stored)
		}
		found := p.find(t, `{"status":"online"}`)
		if len(found) != 1 || !sameJSON(t, found[0].Metadata(), metadata) {
			t.Errorf("found %+v", found)
		}
		_, err = p.Register(t.Context(), client.Registration{ID: "dev-1"})
		wantError(t, err, client.ErrAlreadyExists)
		_, err = p.Register(t.Context(), client.Registration{ID: "dev-1", Metadata: map[string]any{"status": "away"}, Mode: client.Replace})
		must(t, err)
		if found := p.find(t, `{"status":"away"}`); len(found) != 1 {
			t.Errorf("after replacing: %+v", found)
		}
		_, err = p.Register(t.Context(), client.Registration{ID: ""})
		wantError(t, err, client.ErrInvalid)
		_, err = p.In("no-such-namespace").Register(t.Context(), client.Registration{ID: "dev-1"})
		wantError(t, err, client.ErrNotFound)
	})
}

func TestEnumerateFiltered(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		p.register(t, 250, func(i int) map[string]any {
			return map[string]any{"room": []string{"engineering", "sales"}[i%2], "floor": i % 10}
		})
		for filter, want := range map[string]int{
			`{}`:                     250,
			`{"room":"engineering"}`: 125,
			`{"room":"engineering","floor":{"$lt":4}}`: 50,
			`{"room":"nowhere"}`:                       0,
		} {
			if found := p.find(t, filter); len(found) != want {
				t.Errorf("%s: %d identities, want %d", filter, len(found), want)
			}
		}
		page, err := p.Enumerate(t.Context(), client.Query{})
		must(t, err)
		if len(page.Identities) != 100 || page.Total != 250 || page.NextPageToken == "" {
			t.Errorf("the default page holds %d of %d, token %q", len(page.Identities), page.Total, page.NextPageToken)
		}
		_, err = p.Enumerate(t.Context(), client.Query{Filter: map[string]any{"floor": map[string]any{"$startwith": "x"}}})
		wantError(t, err, client.ErrInvalid)
	})
}

func TestMulticastAll(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		for _, n := range []int{0, 10, 100, slottest.Rounds(1000)} {
			p.register(t, n, nil)
			a := p.attach(t, names(n)...)
			result := p.multicast(t, client.MulticastRequest{Payload: []byte("to all")})
			checkAllAcked(t, result, names(n))
			a.checkReceived(t, result.ID, names(n))
			a.close(t)
		}
	})
}

func TestMulticastFiltered(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		p.register(t, 20, func(i int) map[string]any { return map[string]any{"even": i%2 == 0} })
		a := p.attach(t, names(20)...)
		var even []string
		for i := 0; i < 20; i += 2 {
			even = append(even, name(i))
		}
		result := p.multicast(t, client.MulticastRequest{Filter: map[string]any{"even": true}, Payload: []byte("to the even")})
		checkAllAcked(t, result, even)
		a.checkReceived(t, result.ID, even)
	})
}

// TestMulticastOutcomes has one target for each way to end.
func TestMulticastOutcomes(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		p.register(t, 3, nil)
		p.attach(t, name(0))
		silent, err := p.Subscribe(t.Context())
		must(t, err)
		defer silent.Close()
		must(t, silent.Attach(t.Context(), false, name(1)))
		result := p.multicast(t, client.MulticastRequest{Timeout: 300 * time.Millisecond})
		want := []client.Target{
			{Status: client.Delivered, Evidence: client.Acked},
			{Status: client.Timeout, Reason: client.NoAck},
			{Status: client.Failed, Reason: client.NoSubscriber},
		}
		if p.durable { // then nothing is lost, and the reason remains
			want[1] = client.Target{Status: client.Pending, Evidence: client.Stored, Reason: client.NoAck}
			want[2] = client.Target{Status: client.Pending, Evidence: client.Stored, Reason: client.NoSubscriber}
		}
		if result.TargetCount != 3 || result.Delivered != 1 || result.Ended != client.DeadlinePassed {
			t.Errorf("%+v", result)
		}
		for i, target := range result.Targets {
			if target.Status != want[i].Status || target.Evidence != want[i].Evidence || target.Reason != want[i].Reason {
				t.Errorf("target %d: %+v", i, target)
			}
		}
		undelivered := p.multicast(t, client.MulticastRequest{Timeout: 300 * time.Millisecond, Report: client.ReportUndelivered})
		if undelivered.TargetCount != 3 || len(undelivered.Targets) != 2 {
			t.Errorf("the report on the undelivered: %+v", undelivered)
		}
		// Without acks, the backend's acceptance is the evidence, and the response says so.
		accepted := p.multicast(t, client.MulticastRequest{Delivery: client.AtMostOnce})
		if accepted.Delivery != client.AtMostOnce || result.Delivery != client.AtLeastOnce {
			t.Errorf("the modes: %q and %q", accepted.Delivery, result.Delivery)
		}
		if accepted.Delivered != 3 || accepted.Targets[2].Evidence != client.Accepted {
			t.Errorf("at most once: %+v", accepted)
		}
	})
}

func TestTTLExpiration(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		for id, ttl := range map[string]time.Duration{"short": 300 * time.Millisecond, "renewed": 300 * time.Millisecond, "long": time.Hour} {
			_, err := p.Register(t.Context(), client.Registration{ID: id, TTL: ttl})
			must(t, err)
		}
		_, err := p.Heartbeat(t.Context(), "renewed", time.Hour)
		must(t, err)
		eventually(t, "the short lease ends", func() bool { return len(p.find(t, `{}`)) == 2 })
		_, err = p.Heartbeat(t.Context(), "short", 0)
		wantError(t, err, client.ErrNotFound)
		if existed, err := p.Unregister(t.Context(), "short"); err != nil || existed {
			t.Errorf("unregistering what expired: %v, %v", existed, err)
		}
		if result := p.multicast(t, client.MulticastRequest{Delivery: client.AtMostOnce}); result.TargetCount != 2 {
			t.Errorf("a multicast after the expiry has %d targets", result.TargetCount)
		}
		_, err = p.Register(t.Context(), client.Registration{ID: "short"})
		must(t, err)
	})
}

func TestUnregister(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		p.register(t, 2, nil)
		for i, want := range []bool{true, false} {
			if existed, err := p.Unregister(t.Context(), name(0)); err != nil || existed != want {
				t.Errorf("call %d: %v, %v", i, existed, err)
			}
		}
		if found := p.find(t, `{}`); len(found) != 1 || found[0].ID != name(1) {
			t.Errorf("left are %+v", found)
		}
		_, err := p.Heartbeat(t.Context(), name(0), 0)
		wantError(t, err, client.ErrNotFound)
		_, err = p.Register(t.Context(), client.Registration{ID: name(0)})
		must(t, err)
	})
}

func TestFilterOperators(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		metadata := map[string]any{
			"name": "sensor-7", "battery": 0.15, "floor": 3, "on": true, "gone": nil, "fw": "1.4.2",
			"tags": []any{"a", "b"}, "pos": map[string]any{"lat": 60.5}, "a.b": "dotted",
		}
		_, err := p.Register(t.Context(), client.Registration{ID: "it", Metadata: metadata})
		must(t, err)
		for filter, match := range map[string]bool{
			`{"floor":3}`: true, `{"floor":3.0}`: true, `{"floor":"3"}`: false, `{"floor":{"$eq":4}}`: false,
			`{"floor":{"$ne":4}}`: true, `{"floor.ne":3}`: false, `{"absent":{"$ne":3}}`: true,
			`{"battery":{"$lt":0.2}}`: true, `{"battery.lte":0.15}`: true, `{"battery":{"$gt":0.15}}`: false, `{"battery.gte":0.15}`: true,
			`{"floor":{"$in":[1,2,3]}}`: true, `{"floor":{"$nin":[1,2,3]}}`: false,
			`{"name":{"$startswith":"sensor"}}`: true, `{"name.endswith":"-7"}`: true, `{"name":{"$contains":"nso"}}`: true,
			`{"name":{"$regex":"^sensor-[0-9]$"}}`: true, `{"tags":{"$contains":"b"}}`: true, `{"tags":"a"}`: true,
			`{"gone":{"$exists":true}}`: true, `{"absent":{"$exists":true}}`: false, `{"gone":null}`: true, `{"absent":null}`: false,
			`{"pos":{"$type":"object"}}`: true, `{"pos.lat":{"$gt":60}}`: true, `{"a\\.b":"dotted"}`: true, `{"a.b":"dotted"}`: false,
			`{"fw":{"$semver":">=1.2 <2"}}`: true, `{"fw":{"$semver":">=1.5"}}`: false,
			`{"$or":[{"floor":9},{"on":true}]}`: true, `{"$and":[{"floor":3},{"on":false}]}`: false, `{"$not":{"floor":9}}`: true,
		} {
			if found := p.find(t, filter); (len(found) == 1) != match {
				t.Errorf("%s: matches %v, want %v", filter, !match, match)
			}
		}
	})
}

func TestFanoutDelivery(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		p.register(t, 2, nil)
		subscribers := make([]*audience, 5)
		for i := range subscribers {
			subscribers[i] = p.attach(t, names(2)...)
		}
		for range 3 {
			result := p.multicast(t, client.MulticastRequest{Payload: []byte("fan out")})
			checkAllAcked(t, result, names(2))
			for _, s := range subscribers {
				s.checkReceived(t, result.ID, names(2))
			}
		}
	})
}

// TestConcurrency is the specification's scenario: 100 register, 50 enumerate and 10 multicast at once, and every result is
// checked.
func TestConcurrency(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		a := p.attach(t, names(100)...)
		results := make(chan *client.Result, 10)
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				_, err := p.Register(t.Context(), client.Registration{ID: name(i), Metadata: map[string]any{"n": i}})
				check(t, err)
			})
		}
		for range 50 {
			all.Go(func() {
				page, err := p.Enumerate(t.Context(), client.Query{PageSize: 1000})
				check(t, err)
				for i, identity := range page.Identities {
					if i > 0 && page.Identities[i-1].ID >= identity.ID || fmt.Sprintf("id-%04v", identity.Metadata()["n"]) != identity.ID {
						t.Errorf("place %d holds %+v", i, identity)
					}
				}
			})
		}
		for range 10 {
			all.Go(func() {
				result, err := p.Multicast(t.Context(), client.MulticastRequest{Payload: []byte("now"), Timeout: 30 * time.Second})
				if err != nil {
					t.Error(err)
					return
				}
				results <- result
			})
		}
		all.Wait()
		close(results)
		for result := range results {
			var targets []string
			for _, target := range result.Targets {
				targets = append(targets, target.Identity)
			}
			checkAllAcked(t, result, targets)
			a.checkReceived(t, result.ID, targets)
		}
		if found := p.find(t, `{}`); len(found) != 100 {
			t.Errorf("%d identities are registered", len(found))
		}
	})
}

// TestHostileIdentities reaches each identity at its own subscriber and nobody else, whatever its name looks like.
func TestHostileIdentities(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		for _, id := range hostile {
			_, err := p.Register(t.Context(), client.Registration{ID: id, Metadata: map[string]any{"me": id}})
			must(t, err)
		}
		audiences := make(map[string]*audience, len(hostile))
		for _, id := range hostile {
			audiences[id] = p.attach(t, id)
		}
		for _, id := range hostile {
			result := p.multicast(t, client.MulticastRequest{Filter: map[string]any{"me": id}})
			checkAllAcked(t, result, []string{id})
			audiences[id].checkReceived(t, result.ID, []string{id})
		}
		for id, a := range audiences {
			if n := a.total(); n != 1 {
				t.Errorf("%q received %d messages", id, n)
			}
		}
	})
}

// TestMulticastRegistry_EndToEnd is the specification's own scenario, first without subscribers, where acceptance is all
// that at-most-once can tell, then with them.
func TestMulticastRegistry_EndToEnd(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		for i := range 10 {
			_, err := p.Register(t.Context(), client.Registration{
				ID: fmt.Sprintf("user-%d", i), Metadata: map[string]any{"status": "online", "room": "engineering"},
			})
			must(t, err)
		}
		if found := p.find(t, `{"status":"online","room":"engineering"}`); len(found) != 10 {
			t.Errorf("%d users are online in engineering", len(found))
		}
		online := map[string]any{"status": "online"}
		result := p.multicast(t, client.MulticastRequest{Filter: online, Payload: []byte("Hello!"), Delivery: client.AtMostOnce})
		if result.TargetCount != 10 || result.Delivered != 10 {
			t.Errorf("at most once: %+v", result)
		}
		var users []string
		for i := range 10 {
			users = append(users, fmt.Sprintf("user-%d", i))
		}
		a := p.attach(t, users...)
		result = p.multicast(t, client.MulticastRequest{Filter: online, Payload: []byte("Hello!")})
		checkAllAcked(t, result, users)
		a.checkReceived(t, result.ID, users)
	})
}

// TestFailedStaysFailed pins a fault of an earlier attempt, which delivered what it had reported as failed, four times.
func TestFailedStaysFailed(t *testing.T) {
	onThose(t, func(c combination) bool { return !c.durable }, func(t *testing.T, p *proxy) {
		p.register(t, 1, nil)
		if result := p.multicast(t, client.MulticastRequest{Payload: []byte("lost")}); result.Failed != 1 {
			t.Fatalf("without a subscriber: %+v", result)
		}
		a := p.attach(t, name(0))
		result := p.multicast(t, client.MulticastRequest{Payload: []byte("found")})
		checkAllAcked(t, result, names(1))
		a.checkReceived(t, result.ID, names(1))
		if n := a.total(); n != 1 {
			t.Errorf("%d messages arrived", n)
		}
	})
}

// TestStoredWhileAway has a durability slot: what an identity missed waits for it, in order, and is delivered once.
func TestStoredWhileAway(t *testing.T) {
	onThose(t, func(c combination) bool { return c.durable }, func(t *testing.T, p *proxy) {
		p.register(t, 2, nil)
		p.attach(t, name(1))
		var sent []string
		for range 5 {
			result := p.multicast(t, client.MulticastRequest{Payload: []byte("while away")})
			if result.Pending != 1 || result.Delivered != 1 || result.Targets[0].Status != client.Pending {
				t.Fatalf("%+v", result)
			}
			sent = append(sent, result.ID)
		}
		stream, err := p.Subscribe(t.Context())
		must(t, err)
		must(t, stream.Attach(t.Context(), false, name(0)))
		var got []string
		for len(got) < len(sent) {
			event, err := stream.Next(t.Context())
			must(t, err)
			for _, m := range event.Messages {
				if !m.Redelivered || !m.AckWanted || string(m.Payload) != "while away" {
					t.Errorf("received %+v", m)
				}
				got = append(got, m.ID)
				must(t, stream.Ack(m.Name()))
			}
		}
		if !slices.Equal(got, sent) {
			t.Errorf("received %v, sent %v", got, sent)
		}
		must(t, stream.Close())
		// Acknowledged is gone: the next subscriber gets what is sent from now on.
		a := p.attach(t, name(0))
		result := p.multicast(t, client.MulticastRequest{Payload: []byte("back")})
		checkAllAcked(t, result, names(2))
		a.checkReceived(t, result.ID, names(1))
		if n := a.total(); n != 1 {
			t.Errorf("%d messages arrived", n)
		}
	})
}
