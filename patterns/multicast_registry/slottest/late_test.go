package slottest_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// late is a messaging slot that knows no more than one with a network in between: that nobody listens comes later, through
// the inbox, and that a subscription is full never comes. It shows that the suite asks for no more than the contract.
type late struct {
	mr.Messaging
	mu      *sync.Mutex
	inboxes map[string]*lateInbox // by an address of theirs
}

func newLate() late {
	return late{
		Messaging: memory.NewMessaging(memory.MessagingConfig{Buffer: 128}), mu: new(sync.Mutex), inboxes: map[string]*lateInbox{},
	}
}

func (l late) Publish(ctx context.Context, messages []mr.Message) []error {
	results := l.Messaging.Publish(ctx, messages)
	for i, err := range results {
		switch {
		case errors.Is(err, mr.ErrQueueFull):
			results[i] = nil
		case errors.Is(err, mr.ErrNoSubscriber):
			results[i] = nil
			l.mu.Lock()
			in, token := l.inboxOf(messages[i].AckTo)
			l.mu.Unlock()
			time.AfterFunc(3*time.Millisecond, func() { in.tell(mr.Receipt{Token: token, Err: err}) })
		}
	}
	return results
}

func (l late) inboxOf(address string) (in *lateInbox, token string) {
	for prefix, in := range l.inboxes {
		if len(address) > len(prefix) && address[:len(prefix)] == prefix {
			return in, address[len(prefix):]
		}
	}
	return nil, ""
}

func (l late) Inbox(ctx context.Context) (mr.Inbox, error) {
	inner, err := l.Messaging.Inbox(ctx)
	if err != nil {
		return nil, err
	}
	in := &lateInbox{Inbox: inner, receipts: make(chan mr.Receipt, 1<<12)}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	in.stop = stop
	in.copying.Go(func() {
		for {
			receipts, err := inner.Next(life)
			if err != nil {
				return
			}
			for _, r := range receipts {
				in.tell(r)
			}
		}
	})
	address := inner.Address("x")
	l.mu.Lock()
	l.inboxes[address[:len(address)-1]] = in
	l.mu.Unlock()
	in.life = life
	return in, nil
}

type lateInbox struct {
	mr.Inbox
	receipts chan mr.Receipt
	life     context.Context
	stop     context.CancelFunc
	copying  sync.WaitGroup
}

func (in *lateInbox) tell(r mr.Receipt) { in.receipts <- r }

func (in *lateInbox) Next(ctx context.Context) ([]mr.Receipt, error) {
	if in.life.Err() != nil {
		return nil, io.EOF
	}
	select {
	case r := <-in.receipts:
		return []mr.Receipt{r}, nil
	case <-in.life.Done():
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (in *lateInbox) Close() error {
	in.stop()
	err := in.Inbox.Close()
	in.copying.Wait()
	return err
}

func TestMessagingOfALateBackend(t *testing.T) {
	slottest.Messaging(t, func(*testing.T) mr.Messaging { return newLate() }, slottest.MessagingOptions{
		Buffer:   128,
		OpenPair: func(*testing.T) (a, b mr.Messaging) { l := newLate(); return l, l },
	})
}

// bare keeps no revisions, cannot count and cannot filter, as a registry may.
type bare struct{ mr.Registry }

func (b bare) Put(ctx context.Context, i mr.Identity, mode mr.PutMode) (mr.Identity, error) {
	stored, err := b.Registry.Put(ctx, i, mode)
	stored.Revision = 0
	return stored, err
}

func (b bare) Scan(ctx context.Context, _ *filter.Expr) iter.Seq2[mr.Identity, error] {
	return func(yield func(mr.Identity, error) bool) {
		for i, err := range b.Registry.Scan(ctx, nil) {
			i.Revision = 0
			if !yield(i, err) {
				return
			}
		}
	}
}

func (b bare) Renew(ctx context.Context, id string, ttl time.Duration) (mr.Lease, error) {
	lease, err := b.Registry.Renew(ctx, id, ttl)
	lease.Of = 0
	return lease, err
}

func TestRegistryWithoutAbilities(t *testing.T) {
	slottest.Registry(t, func(*testing.T) mr.Registry {
		return bare{memory.NewRegistry(memory.RegistryConfig{})}
	}, slottest.RegistryOptions{
		ShortestTTL: 60 * time.Millisecond,
		OpenPair: func(*testing.T) (a, b mr.Registry) {
			r := memory.NewRegistry(memory.RegistryConfig{})
			return bare{r}, bare{r}
		},
	})
}

func TestDurabilityOfAPair(t *testing.T) {
	slottest.Durability(t, func(*testing.T) mr.Durability {
		return memory.NewDurability(memory.DurabilityConfig{})
	}, slottest.DurabilityOptions{
		OpenPair: func(*testing.T) (a, b mr.Durability) {
			d := memory.NewDurability(memory.DurabilityConfig{})
			return d, d
		},
	})
}
