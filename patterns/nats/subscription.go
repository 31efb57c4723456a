package nats

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/nats-io/nats.go"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/mailbox"
)

const (
	// incoming is how many messages may wait between the driver, which drops what does not fit, and the router, which never
	// waits for anybody.
	incoming = 1 << 15
	// atOnce is how many messages the router puts into mailboxes before it wakes their readers.
	atOnce = 256
)

// router brings what comes in on a connection to the mailboxes of its subscriptions: one goroutine for all of them.
type router struct {
	in   chan *nats.Msg
	gone chan struct{}
	done chan struct{}
	once sync.Once

	mu     sync.RWMutex
	routes map[*nats.Subscription]*route
	open   map[io.Closer]struct{} // what ends with the connection
	ended  bool
}

// route is one topic of one subscription.
type route struct {
	slot            *mailbox.Slot
	topic, identity string
	dropped         int // by the driver, as far as reported; the router's goroutine alone knows it
}

func newRouter() *router {
	r := &router{
		in: make(chan *nats.Msg, incoming), gone: make(chan struct{}), done: make(chan struct{}),
		routes: make(map[*nats.Subscription]*route), open: make(map[io.Closer]struct{}),
	}
	go r.run()
	return r
}

// stop ends the goroutine, and whatever is open.
func (r *router) stop() {
	r.once.Do(func() { close(r.gone) })
	<-r.done
	r.mu.Lock()
	open := r.open
	r.open, r.ended = nil, true
	r.mu.Unlock()
	for closer := range open {
		_ = closer.Close()
	}
}

// own makes something end with the connection, and returns false when that has ended.
func (r *router) own(closer io.Closer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.open[closer] = struct{}{}
	}
	return !r.ended
}

func (r *router) disown(closer io.Closer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, closer)
}

// subscribe begins to receive a topic. The lock keeps the router from meeting a message whose route it does not know yet; the
// driver only appends to its buffer meanwhile.
func (r *router) subscribe(nc *nats.Conn, topic, identity string, slot *mailbox.Slot) (*nats.Subscription, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sub, err := nc.ChanSubscribe(topic, r.in)
	if err == nil {
		r.routes[sub] = &route{slot: slot, topic: topic, identity: identity}
	}
	return sub, err
}

// unsubscribe ends the reception of topics.
func (r *router) unsubscribe(subs []*nats.Subscription) {
	r.mu.Lock()
	for _, sub := range subs {
		delete(r.routes, sub)
	}
	r.mu.Unlock()
	for _, sub := range subs {
		_ = sub.Unsubscribe() // fails on a closed connection, where nothing is left to end
	}
}

func (r *router) run() {
	defer close(r.done)
	var (
		read headerReader
		told []*mailbox.Box
	)
	for {
		select {
		case m := <-r.in:
			overflow := false
			told = told[:0]
			for n := 0; m != nil; n++ {
				// The driver drops when the channel is full, and then the channel is so here or one short of it.
				overflow = overflow || len(r.in) >= incoming-1
				told = r.deliver(m, &read, told)
				m = nil
				if n < atOnce {
					select {
					case m = <-r.in:
					default:
					}
				}
			}
			for _, box := range told {
				box.Wake()
			}
			if overflow {
				r.count()
			}
		case <-r.gone:
			return
		}
	}
}

// deliver puts a message into its mailbox, and appends that to told if its reader is to be woken.
func (r *router) deliver(m *nats.Msg, read *headerReader, told []*mailbox.Box) []*mailbox.Box {
	r.mu.RLock()
	to := r.routes[m.Sub]
	r.mu.RUnlock()
	if to == nil {
		return told
	}
	message := multicastregistry.Message{Topic: to.topic, Identity: to.identity, Payload: m.Data, AckTo: m.Reply}
	read.read(m.Header, &message)
	to.slot.Put(&message) // a loss is the mailbox's to report
	if box := to.slot.Box(); box.Claim() {
		told = append(told, box)
	}
	return told
}

// count reports to the mailboxes what the driver has dropped.
func (r *router) count() {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for sub, to := range r.routes {
		if dropped, err := sub.Dropped(); err == nil && dropped > to.dropped {
			to.slot.Box().Lost(uint64(dropped - to.dropped))
			to.dropped = dropped
		}
	}
}

// subscription is one mailbox for any number of topics, each a subscription of the driver's.
type subscription struct {
	conn *Conn
	box  *mailbox.Box

	mu     sync.Mutex // held while topics come and go, so that the last call for a topic holds
	topics map[string]*nats.Subscription
	closed bool
}

// Subscribe implements multicastregistry.Messaging.
func (m *Messaging) Subscribe(ctx context.Context, topics ...string) (multicastregistry.Subscription, error) {
	s := &subscription{conn: m.conn, box: mailbox.New(m.buffer), topics: make(map[string]*nats.Subscription)}
	if !m.conn.router.own(s) {
		return nil, wrap("subscribe", "", nats.ErrConnectionClosed)
	}
	if err := s.Add(ctx, topics...); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// Add implements multicastregistry.Subscription: one round trip for all topics. After an error some of the topics may be
// received; adding them again is right, and so is removing them.
func (s *subscription) Add(ctx context.Context, topics ...string) error {
	c := s.conn
	if err := ctx.Err(); err != nil {
		return wrap("subscribe", "", err)
	}
	w := c.watch.open()
	defer w.close()
	last := c.nc.LastError()
	if err := s.add(topics); err != nil {
		return err
	}
	if len(topics) == 0 {
		return nil
	}
	if err := c.flush(ctx, "subscribe", ""); err != nil {
		return err
	}
	return s.refused(topics, c.refusals(ctx, w, last))
}

func (s *subscription) add(topics []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return io.EOF
	}
	for _, topic := range topics {
		_, identity, ok := multicastregistry.ParseTopic(topic)
		if !ok {
			return fmt.Errorf("nats: subscribe: %w: %q is not a topic", multicastregistry.ErrInvalid, topic)
		}
		slot, added := s.box.Open(topic)
		if !added {
			continue
		}
		sub, err := s.conn.router.subscribe(s.conn.nc, topic, identity, slot)
		if err != nil {
			s.box.Drop([]string{topic}, func(string, *mailbox.Slot) {})
			return wrap("subscribe to", identity, err)
		}
		s.topics[topic] = sub
	}
	return nil
}

// refused removes the topics that the server does not let us receive, and says so.
func (s *subscription) refused(topics []string, refusals []error) error {
	if len(refusals) == 0 {
		return nil
	}
	mine := make(map[string]bool, len(topics))
	for _, topic := range topics {
		mine[topic] = true
	}
	for _, err := range refusals {
		if errors.Is(err, nats.ErrMaxSubscriptionsExceeded) {
			s.remove(topics)
			return wrap("subscribe", "", err)
		}
		if topic := refusedSubject(err); mine[topic] {
			s.remove(topics)
			_, identity, _ := multicastregistry.ParseTopic(topic)
			return wrap("subscribe to", identity, err)
		}
	}
	return nil
}

// Remove implements multicastregistry.Subscription. Messages that wait for the topics go too. It does not wait for the server.
func (s *subscription) Remove(ctx context.Context, topics ...string) error {
	if err := ctx.Err(); err != nil {
		return wrap("unsubscribe", "", err)
	}
	s.remove(topics)
	return nil
}

func (s *subscription) remove(topics []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var subs []*nats.Subscription
	s.box.Drop(topics, func(topic string, _ *mailbox.Slot) {
		subs = append(subs, s.topics[topic])
		delete(s.topics, topic)
	})
	s.conn.router.unsubscribe(subs)
}

// Next implements multicastregistry.Subscription.
func (s *subscription) Next(ctx context.Context) (multicastregistry.Batch, error) {
	return s.box.Next(ctx)
}

// Close implements multicastregistry.Subscription.
func (s *subscription) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.box.Close(func(string, *mailbox.Slot) {})
	subs := make([]*nats.Subscription, 0, len(s.topics))
	for _, sub := range s.topics {
		subs = append(subs, sub)
	}
	s.topics = nil
	s.conn.router.unsubscribe(subs)
	s.conn.router.disown(s)
	return nil
}
