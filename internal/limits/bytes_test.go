package limits

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prism-data-layer/prism/internal/auth"
)

func TestBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{
			PerCaller: Share{PayloadBytes: Rate{PerSecond: 100}, MetadataBytes: Rate{PerSecond: 1, Burst: 200}},
			Total:     Share{PayloadBytes: Rate{PerSecond: 10, Burst: 150}},
		})
		for _, n := range []int{0, 60, 0, 40} {
			if err := l.Payload("a", n); err != nil {
				t.Fatal(err)
			}
		}
		err := l.Payload("a", 10)
		wantExceeded(t, err, "per_caller.payload_bytes", 100*time.Millisecond)
		if !strings.Contains(err.Error(), "10 bytes are sent, 0 may be now, at most 100 bytes a second, 100 at once; try again after 100ms") {
			t.Errorf("got %v", err)
		}
		err = l.Payload("a", 101) // never
		wantExceeded(t, err, "per_caller.payload_bytes", 0)
		for range 3 { // what all together may not is not b's loss
			wantExceeded(t, l.Payload("b", 100), "total.payload_bytes", 5*time.Second)
		}
		if err := l.Payload("b", 50); err != nil {
			t.Fatal(err)
		}
		<-time.After(10 * time.Second)
		if err := l.Payload("a", 100); err != nil {
			t.Fatal(err)
		}
		if err := l.Call("a", auth.OpMulticast); err != nil {
			t.Errorf("what has no limit: %v", err)
		}

		metadata := map[string]any{"room": strings.Repeat("x", 100)} // 12 for itself, 4+4 for the key, 12+100 for the value
		if err := l.Metadata("a", metadata); err != nil {
			t.Fatal(err)
		}
		wantExceeded(t, l.Metadata("a", metadata), "per_caller.metadata_bytes", 64*time.Second)
		if err := l.Metadata("b", metadata); err != nil {
			t.Fatal(err)
		}
	})
}

func TestNoBytes(t *testing.T) {
	t.Parallel()
	for _, l := range []*Limits{nil, New(Config{})} {
		if err := l.Payload("a", 1<<30); err != nil {
			t.Error(err)
		}
		if err := l.Metadata("a", map[string]any{"a": 1.0}); err != nil {
			t.Error(err)
		}
	}
	for field, share := range map[string]Share{
		"total.payload_bytes": {PayloadBytes: Rate{Burst: 5}}, "total.metadata_bytes": {MetadataBytes: Rate{PerSecond: 1, Burst: -1}},
	} {
		if err := (Config{Total: share}).Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
