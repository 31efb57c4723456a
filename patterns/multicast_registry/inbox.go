package multicastregistry

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"
)

// A token leads a receipt to its target: the flight's number and the target's place, in base 36.
func (f *flight) token(i int) string {
	var buffer [28]byte
	b := strconv.AppendUint(buffer[:0], f.number, 36)
	b = append(b, '.')
	return string(strconv.AppendUint(b, uint64(i), 36))
}

func parseToken(token string) (number, i uint64, ok bool) {
	a, b, found := strings.Cut(token, ".")
	number, err1 := strconv.ParseUint(a, 36, 64)
	i, err2 := strconv.ParseUint(b, 36, 64)
	return number, i, found && err1 == nil && err2 == nil
}

// readInbox settles targets as receipts come in, until the inbox is closed.
func (c *Coordinator) readInbox(ctx context.Context) {
	for {
		receipts, err := c.inbox.Next(ctx)
		if err != nil {
			return
		}
		now := time.Now()
		for i := range receipts {
			c.receive(&receipts[i], now)
		}
	}
}

// receive settles the target of one receipt, or plans its next attempt. Receipts of multicasts that have returned, and tokens
// that were never given out, lead nowhere.
func (c *Coordinator) receive(r *Receipt, at time.Time) {
	number, n, ok := parseToken(r.Token)
	if !ok {
		return
	}
	c.mu.Lock()
	f := c.flights[number]
	c.mu.Unlock()
	if f == nil || n >= uint64(len(f.targets)) || f.inbox == nil {
		return
	}
	i, now := int(n), at.Sub(f.start)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.landed:
	case r.Err == nil:
		f.settle(i, Target{Status: Delivered, Evidence: Acked, Reply: r.Reply}, now)
	case errors.Is(r.Err, ErrGone):
		f.abandoned(i, now)
	default:
		f.failed(i, r.Err, now)
	}
}
