package mailbox

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// maxReceipts bounds what waits in one inbox.
	maxReceipts = 1 << 20
	// maxReplyBytes bounds the bodies of the replies among it.
	maxReplyBytes = 256 << 20
)

// Receipts is the bounded queue of one inbox. All methods may be called concurrently, Next by one goroutine at a time.
type Receipts struct {
	ready chan struct{}
	gone  chan struct{}
	told  atomic.Bool // see Claim

	mu     sync.Mutex
	queue  []multicastregistry.Receipt
	bytes  int // of the bodies in queue
	closed bool
}

// NewReceipts returns an empty queue.
func NewReceipts() *Receipts {
	return &Receipts{ready: make(chan struct{}, 1), gone: make(chan struct{})}
}

// Put appends a receipt, unless a million wait or its reply does not fit. It wakes nobody: see Wake.
func (r *Receipts) Put(receipt multicastregistry.Receipt) (accepted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	size := len(receipt.Reply.Body)
	if len(r.queue) >= maxReceipts || size > 0 && r.bytes+size > maxReplyBytes {
		return false
	}
	r.bytes += size
	r.queue = append(r.queue, receipt)
	return true
}

// Claim tells whether the caller, who has put something, is the one to call Wake. Wake gives the claim back.
func (r *Receipts) Claim() bool { return r.told.CompareAndSwap(false, true) }

// Wake lets Next look for what was put.
func (r *Receipts) Wake() {
	r.told.Store(false)
	wake(r.ready)
}

// Next waits for receipts and returns all that wait. It implements multicastregistry.Inbox.
func (r *Receipts) Next(ctx context.Context) ([]multicastregistry.Receipt, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r.mu.Lock()
		queue, closed := r.queue, r.closed
		r.queue, r.bytes = nil, 0
		r.mu.Unlock()
		switch {
		case closed:
			return nil, io.EOF
		case len(queue) > 0:
			return queue, nil
		}
		select {
		case <-r.ready:
		case <-r.gone:
		case <-ctx.Done():
		}
	}
}

// Close ends the queue and tells whether this call did. Closing again does nothing.
func (r *Receipts) Close() (first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.closed = true
	close(r.gone)
	return true
}
