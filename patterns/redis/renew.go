package redis

import (
	"context"
	"fmt"
	"sync"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// renewedAtOnce is how many leases one script renews: Redis is busy with them for a millisecond or two.
	renewedAtOnce = 50
	// renewScripts is how many of these scripts are under way at once. Calls that come meanwhile share the next.
	renewScripts = 4
	// renewFields is how many numbers renew.lua tells of each lease.
	renewFields = 5
)

// renewals are the calls of Renew that wait for a script. A call that comes alone has one to itself, at once; the more come, the
// more share one, which costs Redis half as much for each, and this process less.
type renewals struct {
	mu      sync.Mutex
	waiting []*renewal
	scripts int // under way
}

// renewal is one call of Renew.
type renewal struct {
	ctx       context.Context //nolint:containedctx // a call that has ended before its script is not in it
	name, ttl string          // as renew.lua takes them
	done      chan struct{}   // closed when the rest is set
	lease     multicastregistry.Lease
	err       error
}

// Renew implements multicastregistry.Registry.
func (r *Registry) Renew(ctx context.Context, id string, ttl time.Duration) (multicastregistry.Lease, error) {
	length := "0"
	if ttl != 0 {
		length = millis(ttl)
	}
	lease, err := r.renew(ctx, multicastregistry.EncodeName(id), length)
	if err != nil {
		return multicastregistry.Lease{}, r.conn.wrap(ctx, "renew", id, err)
	}
	return lease, nil
}

func (r *Registry) renew(ctx context.Context, name, ttl string) (multicastregistry.Lease, error) {
	bounded, cancel, err := r.conn.bound(ctx)
	if err != nil {
		return multicastregistry.Lease{}, err
	}
	defer cancel()
	call := &renewal{ctx: bounded, name: name, ttl: ttl, done: make(chan struct{})}
	q := &r.renewals
	q.mu.Lock()
	q.waiting = append(q.waiting, call)
	begin := q.scripts < renewScripts
	if begin {
		q.scripts++
	}
	q.mu.Unlock()
	if begin && !r.conn.background(r.renewWaiting) {
		r.renewWaiting() //nolint:contextcheck // on a closed connection, where nothing is waited for: all calls are told at once
	}
	select {
	case <-call.done:
		return call.lease, call.err
	case <-bounded.Done():
		return multicastregistry.Lease{}, bounded.Err()
	}
}

// renewWaiting runs scripts until no call waits. It outlives the call that began it, and ends with the connection.
func (r *Registry) renewWaiting() {
	for calls := r.renewals.take(); len(calls) > 0; calls = r.renewals.take() {
		args := make([]string, 1, 1+2*len(calls))
		args[0] = r.keys.identity
		for _, call := range calls {
			args = append(args, call.name, call.ttl)
		}
		reply, err := r.change(context.Background(), renewScript, []string{r.keys.leases, r.keys.head, r.keys.log}, args...)
		if err == nil && len(reply) != renewFields*len(calls) {
			err = fmt.Errorf("%w: renew: %v", errReply, reply)
		}
		for i, call := range calls {
			if call.err = err; err == nil {
				call.lease, call.err = r.renewed(reply[renewFields*i:][:renewFields])
			}
			close(call.done)
		}
	}
}

// renewed reads what renew.lua tells of one lease.
func (r *Registry) renewed(reply []int64) (multicastregistry.Lease, error) {
	if reply[0] == 0 {
		return multicastregistry.Lease{}, multicastregistry.ErrNotFound
	}
	r.seen(reply[1])
	return multicastregistry.Lease{
		TTL: duration(reply[2]), ExpiresAt: instant(reply[3]), Of: multicastregistry.Revision(reply[4]),
	}, nil
}

// take takes the calls for the next script, the oldest first. When none waits, a script less is under way.
func (q *renewals) take() (calls []*renewal) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for ; n < len(q.waiting) && len(calls) < renewedAtOnce; n++ {
		if call := q.waiting[n]; call.ctx.Err() == nil {
			calls = append(calls, call)
		}
	}
	if q.waiting = q.waiting[n:]; len(q.waiting) == 0 {
		q.waiting = nil
	}
	if len(calls) == 0 {
		q.scripts--
	}
	return calls
}
