package redis

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// release is a topic to be let go.
type release struct {
	session       uint64
	holder, topic string
	handed        string // see hold; empty: as far as it was when we claimed it
}

// renewing keeps the lease, until the Durability is closed.
func (d *Durability) renewing() {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	checked, failing := time.Now(), false
	for {
		select {
		case <-tick.C:
		case <-d.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(d.ctx, renewEvery)
		err := d.renew(ctx)
		cancel()
		if d.ctx.Err() == nil && (err != nil) != failing {
			failing = err != nil
			d.report("lease", err)
		}
		d.mu.Lock()
		if time.Since(checked) > checkEvery {
			d.check, checked = true, time.Now()
		}
		for _, holds := range d.standby {
			d.claimAgain(holds)
		}
		clear(d.standby)
		d.mu.Unlock()
		signal(d.wake)
	}
}

// report logs that something in the background fails, or works again.
func (d *Durability) report(what string, err error) {
	log := d.cfg.Log.With(slog.String("namespace", d.cfg.Namespace), slog.String("what", what))
	if err != nil {
		log.Warn("redis: durability fails in the background", slog.Any("error", err))
		return
	}
	log.Info("redis: durability works again in the background")
}

// renew renews the lease, or begins a new one when it is gone: then all topics may be another's.
func (d *Durability) renew(ctx context.Context) error {
	d.renewal.Lock()
	defer d.renewal.Unlock()
	d.mu.Lock()
	session, lease := d.session, d.lease()
	d.mu.Unlock()
	ttl := strconv.FormatInt(leaseTTL.Milliseconds(), 10)
	if session > 0 {
		began := time.Now()
		reply, err := d.conn.run(ctx, d.conn.write, leaseScript, []string{d.keys[2] + lease}, []string{ttl, "0"})
		if err != nil {
			return err
		}
		if reply[0] >= 0 {
			d.renewed(began, uint64(reply[0]))
			return nil
		}
	}
	next := d.name + "/" + strconv.FormatUint(session+1, 10)
	began := time.Now()
	if _, err := d.conn.run(ctx, d.conn.write, leaseScript, []string{d.keys[2] + next}, []string{ttl, "1"}); err != nil {
		return err
	}
	d.began(began, session+1)
	return nil
}

// renewed takes in that the lease was renewed, and how many notices were published for it.
func (d *Durability) renewed(at time.Time, published uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	lapsed := !time.Now().Before(d.until)
	d.until = at.Add(leaseTTL)
	if d.published > d.heard { // they have had a whole round to come
		d.heard, d.check = d.published, true
	}
	d.published = published
	for _, c := range d.consumers {
		if lapsed {
			signal(c.ready)
		}
	}
}

// began takes in that a session has begun. Whatever was held is claimed again.
func (d *Durability) began(at time.Time, session uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.session, d.until, d.published, d.heard = session, at.Add(leaseTTL), 0, 0
	d.releasing = nil // it is nobody's
	for _, holds := range d.standby {
		d.claimAgain(holds)
	}
	clear(d.standby)
	for _, c := range d.consumers {
		var lost []*hold
		for _, h := range c.topics {
			if h.state == held {
				lost = append(lost, h)
			}
		}
		d.lose(c, lost)
		signal(c.ready)
	}
}

// lose takes in that topics are held no more. The caller holds d.mu.
func (d *Durability) lose(c *consumer, holds []*hold) {
	if len(holds) > 0 {
		for _, h := range holds {
			h.due = false
		}
		d.claimAgain(holds)
		c.forget(func(h *hold) bool { return h.state == claiming })
	}
}

// claimAgain has topics claimed in the background. The caller holds d.mu.
func (d *Durability) claimAgain(holds []*hold) {
	for _, h := range holds {
		h.state = claiming
	}
	d.claiming = append(d.claiming, holds...)
	if len(holds) > 0 {
		signal(d.wake)
	}
}

// standsNoMore takes a hold off those that stand by. The caller holds d.mu.
func (d *Durability) standsNoMore(h *hold) {
	rest := slices.DeleteFunc(d.standby[h.topic], func(other *hold) bool { return other == h })
	if len(rest) == 0 {
		delete(d.standby, h.topic)
		return
	}
	d.standby[h.topic] = rest
}

// onNotice hears of messages that were stored: see enqueue.lua. It waits for nothing.
func (d *Durability) onNotice(text string) {
	fields := strings.Split(text, " ")
	if len(fields) < 2 || len(fields)%2 != 0 {
		return
	}
	session, _ := strconv.ParseUint(fields[0], 10, 64)
	number, _ := strconv.ParseUint(fields[1], 10, 64)
	d.mu.Lock()
	defer d.mu.Unlock()
	if session != d.session || number <= d.heard {
		return
	}
	if number > d.heard+1 {
		d.check = true
		signal(d.wake)
	}
	d.heard = number
	for pair := range slices.Chunk(fields[2:], 2) {
		n, _ := strconv.ParseUint(pair[0], 10, 64)
		if c := d.consumers[n]; c != nil {
			if h := c.topics[pair[1]]; h != nil {
				h.poke()
			}
		}
	}
}

// onFree hears of topics that were let go. It waits for nothing.
func (d *Durability) onFree(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.standby) == 0 && d.inFlight == 0 {
		return
	}
	for topic := range strings.SplitSeq(text, " ") {
		if d.inFlight > 0 {
			d.freed[topic] = true // it may be a claim that finds it held of which the answer is still to come
		}
		holds := d.standby[topic]
		delete(d.standby, topic)
		d.claimAgain(holds)
	}
}

// missed takes in that notices may have been missed. It waits for nothing.
func (d *Durability) missed() {
	d.mu.Lock()
	d.check = true
	d.mu.Unlock()
	signal(d.wake)
}

// letGo has topics let go in the background: those that were held, and those of which it is unknown. The caller holds d.mu.
func (d *Durability) letGo(releases []release, unknown []*hold) {
	d.releasing = append(d.releasing, releases...)
	for _, h := range unknown {
		if h.session == d.session {
			d.releasing = append(d.releasing, release{session: h.session, holder: h.holder(d), topic: h.topic})
		}
	}
	signal(d.wake)
}

// releaseNow lets topics go, or has it done later.
func (d *Durability) releaseNow(ctx context.Context, releases []release) {
	if err := d.release(ctx, releases); err != nil {
		d.mu.Lock()
		d.letGo(releases, nil)
		d.mu.Unlock()
	}
}

func (d *Durability) release(ctx context.Context, releases []release) error {
	if len(releases) == 0 {
		return nil
	}
	bounded, cancel, err := d.conn.bound(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	calls := split(len(releases), topicsAtOnce, d.head, func(args []string, item int) []string {
		r := &releases[item]
		return append(args, r.holder, r.topic, r.handed)
	})
	d.conn.runSplit(bounded, releaseScript, d.keys, calls, func(_, _ int, result rueidis.RedisResult) {
		if bad := result.Error(); bad != nil && err == nil {
			err = bad
		}
	})
	return err
}

// claimTries is how often the lease may be lost during a claim.
const claimTries = 3

// claim claims topics, and takes in which of them are held now. When it fails, those that are still claiming are unknown.
func (d *Durability) claim(ctx context.Context, holds []*hold) error {
	leased := true
	for try := 0; try < claimTries && len(holds) > 0; try++ {
		var err error
		if leased, err = d.claimOnce(ctx, holds); err == nil && !leased {
			err = d.renew(ctx)
		}
		if err != nil {
			return err
		}
		d.mu.Lock()
		holds = slices.DeleteFunc(holds, func(h *hold) bool { return h.state != claiming })
		d.mu.Unlock()
	}
	if !leased {
		return fmt.Errorf("%w: the lease on topics was lost again and again", multicastregistry.ErrUnavailable)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.claimAgain(slices.DeleteFunc(holds, func(h *hold) bool { return h.state != claiming }))
	return nil
}

// claimOnce is claim, except that topics may be left over, all of them when the lease is gone.
func (d *Durability) claimOnce(ctx context.Context, holds []*hold) (leased bool, err error) {
	bounded, cancel, err := d.conn.bound(ctx)
	if err != nil {
		return false, err
	}
	defer cancel()
	d.mu.Lock()
	d.inFlight++
	session := d.session
	calls := split(len(holds), topicsAtOnce, d.args(d.lease()), func(args []string, item int) []string {
		holds[item].session = session
		return append(args, holds[item].holder(d), holds[item].topic)
	})
	d.mu.Unlock()
	defer d.landed()
	leased = true
	d.conn.runSplit(bounded, claimScript, d.keys, calls, func(first, items int, result rueidis.RedisResult) {
		answers, bad := result.AsStrSlice()
		switch {
		case bad == nil && len(answers) == 0:
			leased = false
			return
		case bad == nil && len(answers) != 2*items:
			bad = fmt.Errorf("%w: claim: %d answers about %d topics", errReply, len(answers), items)
		}
		if bad != nil {
			err = bad
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		for i := range items {
			d.claimed(holds[first+i], session, answers[2*i], answers[2*i+1])
		}
	})
	return leased, err
}

// landed takes in that a claim is under way no more.
func (d *Durability) landed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inFlight--; d.inFlight == 0 {
		clear(d.freed)
	}
}

// claimed takes in the answer to a claim: see claim.lua. The caller holds d.mu.
func (d *Durability) claimed(h *hold, session uint64, handed, last string) {
	switch {
	case session != d.session: // the claim is void
	case h.state == abandoned:
		if handed != "-" {
			d.letGo(nil, []*hold{h})
		}
	case h.state != claiming:
	case handed == "-" && d.freed[h.topic]: // it is claimed again at once
		delete(d.freed, h.topic)
		h.caught()
	case handed == "-":
		h.state = standing
		d.standby[h.topic] = append(d.standby[h.topic], h)
		h.caught()
	default:
		h.state = held
		h.fetched, h.handed, h.target = entryID{}, parseEntry(handed), parseEntry(last)
		if last == "" {
			h.caught()
		}
		if last != "" || h.poked {
			h.poke()
		}
		h.poked = false
	}
}
