package nats

import (
	"context"
	"fmt"
	"sync"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// listFrom is from how many messages of one id on all that is stored of it is listed at once.
const listFrom = 16

// ages knows how old the oldest message is at the most.
type ages struct {
	mu      sync.Mutex
	firstAt time.Time // no message was stored before
}

// cutoff returns the sequence below which messages are too old; 0: none is. The server keeps them longer, for the count.
func (d *Durability) cutoff(ctx context.Context) (uint64, error) {
	now, err := d.clock.now(ctx)
	if err != nil {
		return 0, err
	}
	oldest := now.Add(-d.cfg.MaxAge)
	a := &d.ages
	a.mu.Lock()
	known := a.firstAt
	a.mu.Unlock()
	if known.After(oldest) {
		return 0, nil
	}
	info, err := d.queue.info(ctx, "", 0)
	if err != nil {
		return 0, err
	}
	first := info.State.FirstAt
	if info.State.Messages == 0 {
		first = info.Now
	}
	a.mu.Lock()
	if first.After(a.firstAt) {
		a.firstAt = first
	}
	a.mu.Unlock()
	if first.After(oldest) {
		return 0, nil
	}
	cutoff := info.State.LastSeq + 1
	body := fmt.Appendf(nil, `{"next_by_subj":%q,"start_time":%q}`, d.prefix+">", oldest.UTC().Format(time.RFC3339Nano))
	err = firstOf(d.queue.one(ctx, 1, func(int) []byte { return body }, func(_ int, m streamMsg, ok bool) error {
		if ok {
			cutoff = m.seq
		}
		return nil
	}))
	return cutoff, err
}

// mayBeOld tells whether something may be too old, as far as is known.
func (d *Durability) mayBeOld() bool {
	a := &d.ages
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.firstAt.After(d.clock.estimate().Add(-d.cfg.MaxAge))
}

// makeRoom removes what is too old from queues.
func (d *Durability) makeRoom(ctx context.Context, names []string) error {
	cutoff, err := d.cutoff(ctx)
	if err != nil || cutoff == 0 {
		return err
	}
	purged, errs := d.queue.purge(ctx, len(names), func(i int) (string, uint64) { return d.prefix + names[i] + ".>", cutoff })
	for i, n := range purged {
		d.hub.tooOld(names[i], n)
	}
	return firstOf(errs)
}

// find returns for each message the subjects under which it is stored: one, or none when it is not, or too old.
func (d *Durability) find(ctx context.Context, messages []multicastregistry.Message) ([][]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	keys, byID := make([]string, len(messages)), make(map[string][]string)
	for i := range messages {
		name, err := d.name(messages[i].Topic)
		if err != nil {
			return nil, err
		}
		id := token(messages[i].ID)
		keys[i] = name + "." + id
		byID[id] = append(byID[id], keys[i])
	}
	if len(messages) == 0 {
		return nil, nil
	}
	cutoff, err := d.cutoff(ctx)
	if err != nil {
		return nil, err
	}
	stored, err := d.list(ctx, byID)
	if err == nil && cutoff > 0 {
		err = d.withoutOld(ctx, stored, cutoff)
	}
	found := make([][]string, len(messages))
	for i, key := range keys {
		found[i] = stored[key]
	}
	return found, err
}

// list returns the subjects of messages by "<name>.<id>": of those asked for, and maybe of others with the same id.
func (d *Durability) list(ctx context.Context, byID map[string][]string) (map[string][]string, error) {
	stored := make(map[string][]string)
	keep := func(subject string) {
		if name, id, _, ok := parts(subject[len(d.prefix):]); ok {
			stored[name+"."+id] = append(stored[name+"."+id], subject)
		}
	}
	var single []string
	for id, keys := range byID {
		if len(keys) < listFrom {
			single = append(single, keys...)
			continue
		}
		subjects, _, err := d.queue.subjects(ctx, d.prefix+"*."+id+".*")
		if err != nil {
			return nil, err
		}
		for _, subject := range subjects {
			keep(subject)
		}
	}
	return stored, firstOf(d.queue.counts(ctx, len(single), func(i int) string { return d.prefix + single[i] + ".*" },
		func(_ int, info streamInfo) error {
			for subject := range info.State.Subjects {
				keep(subject)
			}
			return nil
		}))
}

// withoutOld takes out what is too old.
func (d *Durability) withoutOld(ctx context.Context, stored map[string][]string, cutoff uint64) error {
	var all []string
	for key, subjects := range stored {
		all = append(all, subjects...)
		delete(stored, key)
	}
	return d.queue.lastOf(ctx, all, func(m streamMsg) error {
		if name, id, _, _ := parts(m.subject[len(d.prefix):]); m.seq >= cutoff {
			stored[name+"."+id] = append(stored[name+"."+id], m.subject)
		}
		return nil
	})
}

// Stored implements multicastregistry.Recaller.
func (d *Durability) Stored(ctx context.Context, messages []multicastregistry.Message) ([]bool, error) {
	found, err := d.find(ctx, messages)
	if err != nil {
		return nil, wrap("look for stored messages", "", err)
	}
	stored := make([]bool, len(messages))
	for i, subjects := range found {
		stored[i] = len(subjects) > 0
	}
	return stored, nil
}

// Withdraw implements multicastregistry.Recaller. What another process has read already may still be yielded there. After an
// error some of the messages may have been withdrawn.
func (d *Durability) Withdraw(ctx context.Context, messages []multicastregistry.Message) ([]bool, error) {
	found, err := d.find(ctx, messages)
	if err != nil {
		return nil, wrap("withdraw", "", err)
	}
	var of []int
	var subjects []string
	for i, each := range found {
		for _, subject := range each {
			of, subjects = append(of, i), append(subjects, subject)
		}
	}
	purged, errs := d.queue.purge(ctx, len(subjects), func(n int) (string, uint64) { return subjects[n], 0 })
	withdrawn := make([]bool, len(messages))
	for n, i := range of {
		if purged[n] > 0 {
			withdrawn[i] = true
			name, _ := d.name(messages[i].Topic)
			d.hub.withdrawn(name, messages[i].ID)
		}
	}
	if err := firstOf(errs); err != nil {
		return nil, wrap("withdraw", "", err)
	}
	return withdrawn, nil
}
