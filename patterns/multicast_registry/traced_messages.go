package multicastregistry

import "context"

type tracedMessaging struct {
	Messaging

	tracer Tracer
}

// Publish implements Messaging.
func (m tracedMessaging) Publish(ctx context.Context, messages []Message) []error {
	ctx, end := m.tracer.Begin(ctx, "messaging.publish")
	results := m.Messaging.Publish(ctx, messages)
	end.each(results)
	return results
}

// Subscribe implements Messaging.
func (m tracedMessaging) Subscribe(ctx context.Context, topics ...string) (Subscription, error) {
	s, err := m.Messaging.Subscribe(ctx, topics...)
	if err != nil {
		return nil, err
	}
	return tracedSubscription{s, m.tracer, "messaging.attach"}, nil
}

type tracedSubscription struct {
	Subscription

	tracer Tracer
	attach string
}

// Add implements Subscription.
func (s tracedSubscription) Add(ctx context.Context, topics ...string) error {
	ctx, end := s.tracer.Begin(ctx, s.attach)
	err := s.Subscription.Add(ctx, topics...)
	end.all(len(topics), err)
	return err
}

type tracedDurability struct {
	Durability

	tracer Tracer
}

// Enqueue implements Durability.
func (d tracedDurability) Enqueue(ctx context.Context, messages []Message) []error {
	ctx, end := d.tracer.Begin(ctx, "durability.enqueue")
	results := d.Durability.Enqueue(ctx, messages)
	end.each(results)
	return results
}

// Consume implements Durability.
func (d tracedDurability) Consume(ctx context.Context, topics ...string) (Subscription, error) {
	s, err := d.Durability.Consume(ctx, topics...)
	if err != nil {
		return nil, err
	}
	return tracedSubscription{s, d.tracer, "durability.attach"}, nil
}

// Purge implements Durability.
func (d tracedDurability) Purge(ctx context.Context, topic string) (int, error) {
	ctx, end := d.tracer.Begin(ctx, "durability.purge")
	purged, err := d.Durability.Purge(ctx, topic)
	end.all(purged, err)
	return purged, err
}

type tracedRecaller struct {
	Recaller

	tracer Tracer
}

// Stored implements Recaller.
func (r tracedRecaller) Stored(ctx context.Context, messages []Message) ([]bool, error) {
	ctx, end := r.tracer.Begin(ctx, "durability.stored")
	stored, err := r.Recaller.Stored(ctx, messages)
	end.all(len(messages), err)
	return stored, err
}

// Withdraw implements Recaller.
func (r tracedRecaller) Withdraw(ctx context.Context, messages []Message) ([]bool, error) {
	ctx, end := r.tracer.Begin(ctx, "durability.withdraw")
	was, err := r.Recaller.Withdraw(ctx, messages)
	end.all(len(messages), err)
	return was, err
}

type tracedLedger struct {
	Ledger

	tracer Tracer
}

// Begin implements Ledger.
func (l tracedLedger) Begin(ctx context.Context, record Record) (Record, bool, error) {
	ctx, end := l.tracer.Begin(ctx, "ledger.begin")
	held, began, err := l.Ledger.Begin(ctx, record)
	end.all(1, err)
	return held, began, err
}

// Finish implements Ledger.
func (l tracedLedger) Finish(ctx context.Context, record Record) error {
	ctx, end := l.tracer.Begin(ctx, "ledger.finish")
	err := l.Ledger.Finish(ctx, record)
	end.all(1, err)
	return err
}

// Held implements Ledger.
func (l tracedLedger) Held(ctx context.Context, key string) (Record, error) {
	ctx, end := l.tracer.Begin(ctx, "ledger.held")
	record, err := l.Ledger.Held(ctx, key)
	end.all(1, err)
	return record, err
}

// Replace implements Ledger.
func (l tracedLedger) Replace(ctx context.Context, record Record, was []byte) (bool, error) {
	ctx, end := l.tracer.Begin(ctx, "ledger.replace")
	replaced, err := l.Ledger.Replace(ctx, record, was)
	end.all(1, err)
	return replaced, err
}

// Settle implements Ledger.
func (l tracedLedger) Settle(ctx context.Context, settlements []Settlement) []error {
	ctx, end := l.tracer.Begin(ctx, "ledger.settle")
	results := l.Ledger.Settle(ctx, settlements)
	end.each(results)
	return results
}

// Get implements Ledger.
func (l tracedLedger) Get(ctx context.Context, id string) (Record, []Settlement, error) {
	ctx, end := l.tracer.Begin(ctx, "ledger.get")
	record, settlements, err := l.Ledger.Get(ctx, id)
	end.all(1, err)
	return record, settlements, err
}

// List implements Ledger.
func (l tracedLedger) List(ctx context.Context, before string, limit int) ([]Record, error) {
	ctx, end := l.tracer.Begin(ctx, "ledger.list")
	records, err := l.Ledger.List(ctx, before, limit)
	end.all(len(records), err)
	return records, err
}
