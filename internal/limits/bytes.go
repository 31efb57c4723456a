package limits

import (
	"fmt"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// What bytes are of.
const (
	ofPayload = iota
	ofMetadata
)

var bytesNames = [2]string{"payload_bytes", "metadata_bytes"}

func (s *Share) bytes() [2]Rate { return [2]Rate{s.PayloadBytes, s.MetadataBytes} }

// Payload takes the bytes of a multicast's payload. Every error is an ExceededError.
func (l *Limits) Payload(caller string, n int) error {
	if n == 0 || !l.bounds(ofPayload) {
		return nil
	}
	return l.take(caller, ofPayload, n)
}

// Metadata takes the bytes of a registration's metadata. Every error is an ExceededError.
func (l *Limits) Metadata(caller string, metadata map[string]any) error {
	if !l.bounds(ofMetadata) {
		return nil
	}
	return l.take(caller, ofMetadata, multicastregistry.MetadataSize(metadata))
}

func (l *Limits) bounds(of int) bool {
	return l != nil && (l.cfg.PerCaller.bytes()[of].PerSecond > 0 || l.cfg.Total.bytes()[of].PerSecond > 0)
}

func (l *Limits) take(caller string, of, n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	undo, err := l.caller(caller).take(of, n, now)
	if err != nil {
		return err
	}
	if _, err = l.all().take(of, n, now); err != nil {
		undo()
	}
	return err
}

// take takes bytes, which undo gives back.
func (t *taken) take(of, n int, now time.Time) (undo func(), err error) {
	bucket := t.bytes[of]
	if bucket == nil {
		return func() {}, nil
	}
	left := max(int(bucket.TokensAt(now)), 0)
	tokens := bucket.ReserveN(now, n)
	exceeded := &ExceededError{
		Limit: t.name + "." + bytesNames[of], Taken: fmt.Sprintf("%d bytes are sent, %d may be now", n, left),
		Most: fmt.Sprintf("%.15g bytes a second, %d at once", float64(bucket.Limit()), bucket.Burst()),
	}
	if !tokens.OK() { // more than there can ever be
		return nil, exceeded
	}
	wait := tokens.DelayFrom(now)
	if wait == 0 {
		return func() { tokens.CancelAt(now) }, nil
	}
	tokens.CancelAt(now)
	exceeded.RetryAfter = max(wait, time.Millisecond)
	return nil, exceeded
}
