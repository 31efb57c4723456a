package multicastregistry

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func manyTargets(n int) []Target {
	targets := make([]Target, n)
	for i := range targets {
		targets[i] = Target{Identity: fmt.Sprintf("id-%06d", i), Status: Delivered, Evidence: Acked, Attempts: 1, Latency: time.Millisecond}
	}
	return targets
}

func TestTargetsAsRecorded(t *testing.T) {
	t.Parallel()
	targets := manyTargets(20_000)
	targets[0].Reply = Reply{Code: 1<<32 - 1, Body: bytes.Repeat([]byte{0, 255}, MaxReplyBytes/2)}
	targets[1] = Target{Identity: "id-000001", Status: Failed, Reason: NoSubscriber, Attempts: 3, Err: fmt.Errorf("x: %w", ErrNoSubscriber)}
	targets[2] = Target{Identity: "id-000002", Status: Timeout, Reason: Gone, Err: errLeft}
	targets[3] = Target{Identity: "id-000003", Status: Pending, Evidence: Stored, Reason: QueueFull, Err: errors.New(strings.Repeat("é", 400))}
	for i := 4; i < 400; i++ {
		targets[i].Reply.Body = bytes.Repeat([]byte{byte(i)}, MaxReplyBytes)
	}
	chunks := encodeTargets(targets)
	for i, chunk := range chunks {
		if len(chunk) > MaxChunk || len(chunk) == 0 {
			t.Errorf("chunk %d has %d bytes", i, len(chunk))
		}
	}
	got, err := decodeTargets(chunks)
	if err != nil || len(got) != len(targets) {
		t.Fatalf("%d targets, %v", len(got), err)
	}
	for i := range got {
		want := targets[i]
		if (got[i].Err == nil) != (want.Err == nil) {
			t.Fatalf("%d: %v, want %v", i, got[i].Err, want.Err)
		}
		got[i].Err, want.Err = nil, nil
		if fmt.Sprint(got[i]) != fmt.Sprint(want) {
			t.Fatalf("%d: %+v, want %+v", i, got[i], want)
		}
	}
	again, _ := decodeTargets(chunks)
	if !errors.Is(again[1].Err, ErrNoSubscriber) || !errors.Is(again[2].Err, ErrGone) || again[2].Err.Error() != errLeft.Error() {
		t.Errorf("%v, %v", again[1].Err, again[2].Err)
	}
	if encodeTargets(nil) != nil {
		t.Error("no targets have a chunk")
	}
}

func FuzzDecodeTargets(f *testing.F) {
	targets := manyTargets(3)
	targets[1] = Target{Identity: "x", Status: Failed, Reason: Gone, Err: errLeft, Reply: Reply{Code: 7, Body: []byte("no")}}
	for _, chunk := range encodeTargets(targets) {
		f.Add(chunk)
	}
	f.Add([]byte{targetsVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, chunk []byte) {
		got, err := decodeTargets([][]byte{chunk})
		if err != nil {
			return
		}
		for i := range got {
			if got[i].Status == 0 || got[i].Status > Timeout {
				t.Fatalf("%+v", got[i])
			}
		}
	})
}

func FuzzSettle(f *testing.F) {
	f.Add(acknowledged("1", "a", Reply{Code: 3, Body: []byte("x")}, time.UnixMilli(5)).Data)
	f.Add([]byte{settledWithdrawn})
	f.Add([]byte{settledCancelled})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &MulticastRecord{Result: Result{Targets: []Target{{Identity: "a", Status: Pending, Evidence: Stored}}}}
		r.settle([]Settlement{{Identity: "a", Data: data}, {Identity: "", Data: data}, {Identity: "b", Data: data}})
		if n := r.Result; n.Delivered+n.Pending+n.Failed+n.TimedOut != 1 || n.TargetCount != 1 {
			t.Errorf("%+v", r.Result)
		}
	})
}

func TestBrokenRecords(t *testing.T) {
	t.Parallel()
	good := encodeTargets(manyTargets(2))
	whole := summary{State: Returned, Targets: 2}.encode()
	for name, r := range map[string]Record{
		"no JSON":          {Summary: []byte("{"), Targets: good},
		"too few targets":  {Summary: summary{State: Returned, Targets: 3}.encode(), Targets: good},
		"cut off":          {Summary: whole, Targets: [][]byte{good[0][:len(good[0])-1]}},
		"another version":  {Summary: whole, Targets: [][]byte{{9}}},
		"an empty chunk":   {Summary: whole, Targets: [][]byte{{}}},
		"an unknown state": {Summary: whole, Targets: [][]byte{{targetsVersion, 1, 'a', 0xf0, 0, 0, 0, 0, 0, 0}}},
	} {
		if _, err := decodeRecord(r); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if r, err := decodeRecord(Record{Summary: whole, Targets: good}); err != nil || r.Result.Delivered != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestSummaryIsBounded(t *testing.T) {
	t.Parallel()
	s := summary{Filter: strings.Repeat("x", maxFilterText+1), Replies: map[uint32]int{}}
	for i := range uint32(maxReplyCodes + 1) {
		s.Replies[i] = 1
	}
	if got := s.encode(); len(got) > 1000 {
		t.Errorf("%d bytes", len(got))
	}
	if len(s.Replies) != maxReplyCodes+1 {
		t.Error("the counts by code are gone from what was encoded, too")
	}
}
