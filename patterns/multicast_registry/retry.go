package multicastregistry

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// How retries work, all of them: an attempt that failed and may succeed later is repeated after a delay that doubles, give or
// take a quarter; one that nobody has acknowledged is repeated when its own time is up; one whose subscriber has left is
// repeated at once, for another subscriber, or else to find out that there is none. Every attempt carries the same message id.
// Nothing is repeated that cannot succeed: nobody listens, too large, settled already. The flight's deadline ends it all.

const (
	// dueTogether is how far apart attempts may be that are made together.
	dueTogether = 10 * time.Millisecond
	// moreAttempts is how many attempts are made beyond the limit for targets whose subscribers have left.
	moreAttempts = 2
)

// retry is the policy of one multicast.
type retry struct {
	attempts int
	delay    time.Duration
	patience time.Duration // for the ack of one attempt
}

func newRetry(cfg Config, req *Request) retry {
	r := retry{
		attempts: cmp.Or(req.RetryAttempts, cfg.RetryAttempts), delay: cmp.Or(req.RetryDelay, cfg.RetryDelay),
		patience: cfg.AttemptTimeout,
	}
	if r.patience == 0 {
		r.patience = req.Timeout / time.Duration(r.attempts)
	}
	return r
}

// backoff is the wait after the nth attempt has failed.
func (r retry) backoff(n int) time.Duration {
	wait := r.delay << min(max(n-1, 0), MaxRetryAttempts)
	return time.Duration(float64(wait) * (0.75 + 0.5*rand.Float64()))
}

// handOver counts the attempts that are about to be made, and returns for which targets: some may have left, or acknowledged an
// earlier attempt, since theirs was due.
func (f *flight) handOver(which []int) []int {
	now := time.Since(f.start)
	f.mu.Lock()
	defer f.mu.Unlock()
	open := make([]int, 0, len(which))
	for _, i := range which {
		t, a := &f.targets[i], &f.attempts[i]
		if t.Status != 0 {
			continue
		}
		open = append(open, i)
		t.Attempts++
		a.sent, a.due, a.reason, a.err = now, 0, 0, nil
		a.reached++
	}
	return open
}

// accepted takes in that the backend has accepted an attempt, whose ack may have come already. The caller holds f.mu.
func (f *flight) accepted(i int, now time.Duration) {
	switch t := &f.targets[i]; {
	case f.inbox == nil:
		f.settle(i, Target{Status: Delivered, Evidence: Accepted}, now)
	case t.Status == 0 && t.Attempts < f.retry.attempts && f.attempts[i].due == 0:
		f.plan(i, now+f.retry.patience)
	}
}

// plan has a target's message handed over again at a time. The caller holds f.mu.
func (f *flight) plan(i int, at time.Duration) {
	at = max(at, 1)
	f.attempts[i].due = at
	if f.due == 0 || at < f.due {
		f.due = at
		signal(f.wake)
	}
}

// takeDue takes the targets whose next attempt is due, and returns the wait for the one after. The caller holds f.mu.
func (f *flight) takeDue(now time.Duration) (which []int, next time.Duration) {
	if f.due == 0 {
		return nil, time.Hour
	}
	if f.due > now {
		return nil, f.due - now
	}
	f.due = 0
	for i := range f.attempts {
		a := &f.attempts[i]
		switch {
		case a.due == 0:
		case f.targets[i].Status != 0:
			a.due = 0
		case a.due <= now+dueTogether:
			a.due = 0
			which = append(which, i)
		case f.due == 0 || a.due < f.due:
			f.due = a.due
		}
	}
	if f.due == 0 {
		return which, time.Hour
	}
	return which, f.due - now
}

// failed takes in that an attempt has failed: as a result of Publish, or later, that nobody receives the topic. The caller
// holds f.mu.
func (f *flight) failed(i int, err error, now time.Duration) {
	t, a := &f.targets[i], &f.attempts[i]
	reason := reasonOf(err)
	known := reason != BackendError || errors.Is(err, ErrUnavailable) // that it has reached nobody
	if known {
		a.reached--
	}
	a.reason, a.err = reason, err
	if t.Status != 0 {
		return
	}
	again := reason == QueueFull || reason == BackendError
	if f.inbox == nil { // at most once: what may have arrived is not repeated, nor what a subscriber had no room for
		again = known && reason == BackendError
	}
	if again && t.Attempts < f.retry.attempts {
		f.plan(i, now+f.retry.backoff(t.Attempts))
		return
	}
	outcome := Target{Status: Failed, Reason: reason, Err: err}
	if f.inbox != nil && a.reached > 0 {
		outcome.Status = Timeout
		if reason == NoSubscriber {
			outcome.Reason, outcome.Err = Gone, errLeft
		}
	}
	f.settle(i, outcome, now)
}

// abandoned takes in that a subscriber has left which had received the message and did not ack it. Another attempt tells
// whether somebody else is there. The caller holds f.mu.
func (f *flight) abandoned(i int, now time.Duration) {
	t := &f.targets[i]
	switch {
	case t.Status != 0:
	case t.Attempts < f.retry.attempts+moreAttempts:
		f.plan(i, now)
	default:
		f.settle(i, Target{Status: Timeout, Reason: Gone, Err: errLeft}, now)
	}
}

var errLeft = fmt.Errorf("%w: the subscriber that had received the message left without acknowledging it", ErrGone)
