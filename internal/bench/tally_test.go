package bench

import (
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// TestTally goes through what may become of one multicast to three identities: what was reported and who received it.
func TestTally(t *testing.T) {
	t.Parallel()
	delivered := client.Result{TargetCount: 3, Delivered: 3}
	oneFailed := client.Result{
		TargetCount: 3, Delivered: 2, Failed: 1,
		Targets: []client.Target{{Identity: "x-11", Status: client.Failed, Reason: client.NoSubscriber}},
	}
	timedOut := client.Result{
		TargetCount: 3, Delivered: 2, TimedOut: 1, Targets: []client.Target{{Identity: "x-11", Status: client.Timeout, Reason: client.NoAck}},
	}
	pending := client.Result{
		TargetCount: 3, Delivered: 2, Pending: 1, Targets: []client.Target{{Identity: "x-11", Status: client.Pending, Reason: client.NoSubscriber}},
	}
	all := []string{"x-10", "x-11", "x-12"}
	for name, c := range map[string]struct {
		mode     client.DeliveryMode
		result   *client.Result
		received []string
		want     Delivery
	}{
		"all well":     {client.AtLeastOnce, &delivered, all, Delivery{Multicasts: 1, Targets: 3, Delivered: 3, Received: 3}},
		"no answer":    {client.AtLeastOnce, nil, all[:1], Delivery{Unanswered: 1, Received: 1}},
		"one failed":   {client.AtLeastOnce, &oneFailed, []string{"x-10", "x-12"}, Delivery{Multicasts: 1, Targets: 3, Delivered: 2, Failed: 1, Received: 2}},
		"contradicted": {client.AtLeastOnce, &oneFailed, all, Delivery{Multicasts: 1, Targets: 3, Delivered: 2, Failed: 1, Received: 3, Contradicted: 1}},
		"late":         {client.AtLeastOnce, &timedOut, all, Delivery{Multicasts: 1, Targets: 3, Delivered: 2, TimedOut: 1, Received: 3}},
		"stored":       {client.AtLeastOnce, &pending, all, Delivery{Multicasts: 1, Targets: 3, Delivered: 2, Pending: 1, Received: 3}},
		"missing":      {client.AtLeastOnce, &delivered, all[1:], Delivery{Multicasts: 1, Targets: 3, Delivered: 3, Received: 2, Missing: 1}},
		"lost":         {client.AtMostOnce, &delivered, all[1:], Delivery{Multicasts: 1, Targets: 3, Delivered: 3, Received: 2, Lost: 1}},
		"repeat":       {client.AtLeastOnce, &delivered, append(all, "x-12"), Delivery{Multicasts: 1, Targets: 3, Delivered: 3, Received: 3, Repeats: 1}},
		"repeated": {
			client.AtMostOnce, &delivered, append([]string{"x-12"}, all...),
			Delivery{Multicasts: 1, Targets: 3, Delivered: 3, Received: 3, Repeats: 1, Repeated: 1},
		},
		"uninvited": {client.AtLeastOnce, &delivered, append([]string{"x-9", "y-10", "x-13"}, all...), Delivery{Multicasts: 1, Targets: 3, Delivered: 3, Received: 3, Uninvited: 3}},
		"too few": {
			client.AtLeastOnce, &client.Result{TargetCount: 2, Delivered: 2}, all,
			Delivery{Multicasts: 1, Targets: 2, Delivered: 2, Received: 3, WrongCount: 1},
		},
	} {
		tally := newTally(7, 64, c.mode, indexOf("x-"))
		number, payload := tally.send(time.Now(), 10, 3)
		for i, identity := range c.received {
			if i == len(c.received)-1 { // the last message comes after the report
				tally.reported(number, c.result)
			}
			tally.received(identity, payload)
		}
		d := tally.close()
		if reasons := d.Reasons; c.result != nil && len(reasons) != len(c.result.Targets) {
			t.Errorf("%s: reasons %v", name, reasons)
		}
		d.Reasons = nil
		if !equal(d, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, d, c.want)
		}
	}
}

func equal(a, b Delivery) bool {
	a.Reasons, b.Reasons = nil, nil
	return a.Violations() == b.Violations() && a.Accounted() == b.Accounted() && [12]uint64{
		a.Multicasts, a.Unanswered, a.Targets, a.Delivered, a.Pending, a.Failed, a.TimedOut, a.Received, a.Repeats, a.Lost, a.Missing, a.Contradicted,
	} == [12]uint64{
		b.Multicasts, b.Unanswered, b.Targets, b.Delivered, b.Pending, b.Failed, b.TimedOut, b.Received, b.Repeats, b.Lost, b.Missing, b.Contradicted,
	}
}

func TestTallyForeign(t *testing.T) {
	t.Parallel()
	tally := newTally(7, 64, client.AtLeastOnce, indexOf("x-"))
	_, payload := tally.send(time.Now(), 0, 1)
	changed := append([]byte(nil), payload...)
	changed[20]++
	_, ofAnother := newTally(8, 64, client.AtLeastOnce, indexOf("x-")).send(time.Now(), 0, 1)
	for _, message := range [][]byte{changed, ofAnother, payload[:63], nil} {
		if _, ok := tally.received("x-0", message); ok {
			t.Errorf("took %x", message)
		}
	}
	if d := tally.close(); d.Corrupted != 4 || d.Violations() != 4 {
		t.Errorf("%+v", d)
	}
}
