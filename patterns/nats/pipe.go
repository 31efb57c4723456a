package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// requestsAtOnce is how many requests to JetStream's API are under way for one call: the server drops what is asked of it when
	// ten thousand, of all clients, wait for an answer.
	requestsAtOnce = 256
	// writesAtOnce is how many messages to streams are.
	writesAtOnce = 2048
	// lookForLoss is how often a call looks whether the connection that it waits for is still the one it wrote to.
	lookForLoss = 50 * time.Millisecond
)

// pipe makes many requests at once, over one subscription for all answers of a connection: "<prefix>.prism.<random>.<call>.<i>".
type pipe struct {
	mu      sync.Mutex
	subject string // up to the call, with the dot; empty: not open
	sub     *nats.Subscription
	calls   map[uint64]*call
	last    uint64
}

// call is a number of requests under way together.
type call struct {
	id    uint64
	ready chan struct{}

	mu  sync.Mutex
	got []answered
}

// answered is an answer to one request of a call.
type answered struct {
	i   int
	msg *nats.Msg
}

// begin opens a call.
func (c *Conn) begin() (*call, string, error) {
	p := &c.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.subject == "" {
		subject := c.cfg.InboxPrefix + ".prism." + rand.Text() + "."
		sub, err := c.nc.Subscribe(subject+"*.*", p.take)
		if err != nil {
			return nil, "", err
		}
		if err := sub.SetPendingLimits(-1, -1); err != nil { // bounded by what was asked for
			return nil, "", errors.Join(err, sub.Unsubscribe())
		}
		p.subject, p.sub, p.calls = subject, sub, make(map[uint64]*call)
	}
	p.last++
	one := &call{id: p.last, ready: make(chan struct{}, 1)}
	p.calls[one.id] = one
	return one, p.subject + strconv.FormatUint(one.id, 36) + ".", nil
}

func (p *pipe) end(one *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.calls, one.id)
}

// take brings an answer to its call.
func (p *pipe) take(m *nats.Msg) {
	p.mu.Lock()
	subject := p.subject
	p.mu.Unlock()
	if len(m.Subject) < len(subject) {
		return
	}
	id, index, _ := strings.Cut(m.Subject[len(subject):], ".")
	number, err := strconv.ParseUint(id, 36, 64)
	i, bad := strconv.ParseUint(index, 36, 31)
	if err != nil || bad != nil {
		return
	}
	p.mu.Lock()
	one := p.calls[number]
	p.mu.Unlock()
	if one == nil {
		return
	}
	one.mu.Lock()
	one.got = append(one.got, answered{int(i), m})
	one.mu.Unlock()
	select {
	case one.ready <- struct{}{}:
	default:
	}
}

func (one *call) take() []answered {
	one.mu.Lock()
	defer one.mu.Unlock()
	got := one.got
	one.got = nil
	return got
}

// unansweredError says that a request was sent, and what came of it is unknown. It is ErrUnavailable unless the caller's context
// ended.
type unansweredError struct{ cause error }

// Error returns the text.
func (e *unansweredError) Error() string { return fmt.Sprintf("no answer: %v", e.cause) }

// Unwrap returns the cause.
func (e *unansweredError) Unwrap() error { return e.cause }

// Is makes it an ErrUnavailable.
func (e *unansweredError) Is(target error) bool {
	return target == multicastregistry.ErrUnavailable && !errors.Is(e.cause, context.Canceled) &&
		!errors.Is(e.cause, context.DeadlineExceeded)
}

// exchange is one call: n requests, of which atOnce are under way at any time.
type exchange struct {
	conn    *Conn
	n       int
	atOnce  int
	out     func(i int, m *nats.Msg) error                // writes request i into m, but for the Reply
	in      func(i int, m *nats.Msg) (done bool, e error) // takes an answer; done: there is no other one to the request
	results []error
	sent    []bool // and not done

	open int // sent and not done
}

// do makes the requests and returns one result for each: nil when in said that it is done without an error. All of it happens
// on the caller's goroutine. Silence of the server for the timeout of the connection ends it, and so does the loss of the
// connection: what was sent then and not answered is an unansweredError.
func (x *exchange) do(ctx context.Context) []error {
	x.results, x.sent = make([]error, x.n), make([]bool, x.n)
	c := x.conn
	reason := ctx.Err()
	if reason == nil && !c.nc.IsConnected() {
		reason = c.down()
	}
	if reason != nil {
		return x.give(0, reason)
	}
	one, inbox, err := c.begin()
	if err != nil {
		return x.give(0, err)
	}
	defer c.pipe.end(one)
	w := c.watch.open()
	defer w.close()
	tick := time.NewTicker(lookForLoss)
	defer tick.Stop()
	epoch, heard := c.epoch(), time.Now()
	m := &nats.Msg{}
	for i := 0; i < x.n || x.open > 0; {
		for i < x.n && x.open < x.atOnce {
			x.send(i, m, inbox)
			i++
		}
		if x.open == 0 {
			continue
		}
		select {
		case <-one.ready:
			for _, a := range one.take() {
				x.answer(a)
			}
			heard = time.Now()
			continue
		case <-ctx.Done():
			return x.give(i, ctx.Err())
		case <-tick.C:
		}
		switch {
		case c.epoch() != epoch || !c.nc.IsConnected():
			return x.give(i, errLostWrites)
		case time.Since(heard) < c.cfg.Timeout:
		default:
			if refusal := w.about(m.Subject); refusal != nil {
				return x.give(i, refusal)
			}
			return x.give(i, &silentError{after: c.cfg.Timeout})
		}
	}
	return x.results
}

func (x *exchange) send(i int, m *nats.Msg, inbox string) {
	*m = nats.Msg{Reply: inbox + strconv.FormatUint(uint64(i), 36)}
	err := x.out(i, m)
	if err == nil {
		err = x.conn.nc.PublishMsg(m)
		if err != nil && !untouched(err) {
			x.conn.broken.Add(1) // what others have put into the buffer may be lost, too
			err = &unansweredError{cause: errLostWrites}
		}
	}
	if err != nil {
		x.results[i] = err
		return
	}
	x.sent[i] = true
	x.open++
}

func (x *exchange) answer(a answered) {
	if a.i >= x.n || !x.sent[a.i] {
		return
	}
	done, err := x.in(a.i, a.msg)
	if done || err != nil {
		x.results[a.i], x.sent[a.i] = err, false
		x.open--
	}
}

// give gives a reason to all requests that are not done. Those from the given one on were not sent.
func (x *exchange) give(from int, reason error) []error {
	for i := range x.results {
		switch {
		case i >= from:
			x.results[i] = reason
		case x.sent[i]:
			x.results[i] = &unansweredError{cause: reason}
		}
	}
	return x.results
}

// firstOf returns the first error, if any.
func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
