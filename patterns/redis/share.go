package redis

import (
	"context"
	"fmt"
	"sync"

	"github.com/redis/rueidis"
)

// sharedBytes bounds the arguments of one script, beyond those of its first call.
const sharedBytes = 256 << 10

// sharing has calls that come at once share a script. A call that comes alone has one to itself, at once; the more come, the more
// share one, which costs Redis much less for each, and this process less.
type sharing struct {
	script *rueidis.Lua
	common []string // arguments for all calls, behind those of change.lua
	fields int      // how many numbers the script tells of each call
	atOnce int      // the most calls for one script: Redis is busy with them for a millisecond or two
	most   int      // the most scripts under way; calls that come meanwhile share the next

	mu      sync.Mutex
	waiting []*sharedCall
	scripts int // under way
}

// sharedCall is a call that waits for a script.
type sharedCall struct {
	ctx   context.Context //nolint:containedctx // a call that has ended before its script is not in it
	args  []string        // as the script takes them
	done  chan struct{}   // closed when the rest is set
	reply []int64
	err   error
}

// share runs a script for a call and whoever shares it, and returns what it tells of this call. The error is not wrapped.
func (r *Registry) share(ctx context.Context, s *sharing, args ...string) ([]int64, error) {
	bounded, cancel, err := r.conn.bound(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	call := &sharedCall{ctx: bounded, args: args, done: make(chan struct{})}
	s.mu.Lock()
	alone := s.scripts < s.most && len(s.waiting) == 0
	if alone {
		s.scripts++
	} else {
		s.waiting = append(s.waiting, call)
	}
	s.mu.Unlock()
	if alone {
		err := r.runTogether(bounded, s, []*sharedCall{call})
		r.handOver(s) //nolint:contextcheck // what follows is for those who wait
		return call.reply, err
	}
	select {
	case <-call.done:
		return call.reply, call.err
	case <-bounded.Done():
		return nil, bounded.Err()
	}
}

// handOver ends a script that a call has run for itself. For those who came meanwhile, another runs.
func (r *Registry) handOver(s *sharing) {
	s.mu.Lock()
	over := len(s.waiting) == 0
	if over {
		s.scripts--
	}
	s.mu.Unlock()
	if run := func() { r.runShared(s) }; !over && !r.conn.background(run) {
		run() // on a closed connection, where nothing is waited for: all calls are told at once
	}
}

// runShared runs scripts until no call waits. It outlives the call that began it, and ends with the connection.
func (r *Registry) runShared(s *sharing) {
	for calls := s.take(); len(calls) > 0; calls = s.take() {
		err := r.runTogether(context.Background(), s, calls)
		if _, refused := rueidis.IsRedisErr(err); refused && len(calls) > 1 {
			for _, call := range calls { // what is wrong with one is not the fault of the others
				call.err = r.runTogether(context.Background(), s, []*sharedCall{call})
			}
		} else {
			for _, call := range calls {
				call.err = err
			}
		}
		for _, call := range calls {
			close(call.done)
		}
	}
}

// runTogether runs one script for calls, and sets their replies.
func (r *Registry) runTogether(ctx context.Context, s *sharing, calls []*sharedCall) error {
	args := make([]string, 0, 1+len(s.common)+len(calls)*len(calls[0].args))
	args = append(append(args, r.keys.identity), s.common...)
	for _, call := range calls {
		args = append(args, call.args...)
	}
	reply, err := r.change(ctx, s.script, []string{r.keys.leases, r.keys.head, r.keys.log}, args...)
	if err != nil {
		return err
	}
	if len(reply) != s.fields*len(calls) {
		return fmt.Errorf("%w: %d numbers for %d calls", errReply, len(reply), len(calls))
	}
	for i, call := range calls {
		call.reply = reply[s.fields*i:][:s.fields:s.fields]
	}
	return nil
}

// take takes the calls for the next script, the oldest first. When none waits, a script less is under way.
func (s *sharing) take() (calls []*sharedCall) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size := 0, 0
	for ; n < len(s.waiting) && len(calls) < s.atOnce; n++ {
		call := s.waiting[n]
		if call.ctx.Err() != nil {
			continue
		}
		for _, arg := range call.args {
			size += len(arg)
		}
		if size > sharedBytes && len(calls) > 0 {
			break
		}
		calls = append(calls, call)
	}
	if s.waiting = s.waiting[n:]; len(s.waiting) == 0 {
		s.waiting = nil
	}
	if len(calls) == 0 {
		s.scripts--
	}
	return calls
}
