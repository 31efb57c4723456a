package redis

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// fetchTopics and fetchBytes bound what one script fetches, fetchScripts how many are under way at once, and fetchEach what
	// one of a consumer's topics gets before its others.
	fetchTopics  = 128
	fetchBytes   = 2 << 20
	fetchScripts = 8
	fetchEach    = 256
	// claimAtOnce is how many topics are claimed before messages are fetched again.
	claimAtOnce = 4000
)

// work does what there is to do in the background, until the Durability is closed: it lets topics go and claims them, looks for
// missed messages, and fetches what consumers wait for. When Redis cannot be reached it tries again, with backoff and for ever.
func (d *Durability) work() {
	failures := 0
	for d.ctx.Err() == nil {
		worked, err := d.workOnce()
		if d.ctx.Err() != nil {
			return
		}
		var pause <-chan time.Time
		switch {
		case err != nil:
			if failures == 0 {
				d.report("work", err)
			}
			backoff := min(firstBackoff<<min(failures, 16), maxBackoff)
			pause = time.After(backoff - rand.N(backoff/2))
			failures++
		case worked:
			if failures > 0 {
				d.report("work", nil)
			}
			failures = 0
			continue
		}
		wake := d.wake
		if err != nil {
			wake = nil
		}
		select {
		case <-wake:
		case <-pause:
		case <-d.ctx.Done():
		}
	}
}

// workOnce does some of each, and tells whether there was anything to do.
func (d *Durability) workOnce() (worked bool, err error) {
	for _, part := range []func() (bool, error){d.workReleases, d.workClaims, d.workCheck, d.fetch} {
		did, err := part()
		if err != nil {
			return true, err
		}
		worked = worked || did
	}
	return worked, nil
}

func (d *Durability) workReleases() (worked bool, err error) {
	d.mu.Lock()
	releases := d.releasing
	d.releasing = nil
	d.mu.Unlock()
	if err := d.release(d.ctx, releases); err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, r := range releases {
			if r.session == d.session {
				d.releasing = append(d.releasing, r)
			}
		}
		return true, fmt.Errorf("let topics go: %w", err)
	}
	return len(releases) > 0, nil
}

func (d *Durability) workClaims() (worked bool, err error) {
	d.mu.Lock()
	n := min(len(d.claiming), claimAtOnce)
	some := append(make([]*hold, 0, n), d.claiming[:n]...)
	if d.claiming = d.claiming[n:]; len(d.claiming) == 0 {
		d.claiming = nil
	}
	d.mu.Unlock()
	if err := d.claim(d.ctx, append([]*hold(nil), some...)); err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, h := range some {
			switch h.state {
			case claiming:
				d.claiming = append(d.claiming, h)
			case abandoned:
				d.letGo(nil, []*hold{h})
			case held, standing:
			}
		}
		return true, fmt.Errorf("claim topics: %w", err)
	}
	return n > 0, nil
}

// workCheck looks through all held topics, when notices may have been missed.
func (d *Durability) workCheck() (worked bool, err error) {
	d.mu.Lock()
	check := d.check
	d.check = false
	var holds []*hold
	var args []string
	for _, c := range d.consumers {
		for _, h := range c.topics {
			if check && h.state == held {
				holds, args = append(holds, h), append(args, h.holder(d))
			}
		}
	}
	session := d.session
	d.mu.Unlock()
	if len(holds) == 0 {
		return false, nil
	}
	bounded, cancel, err := d.conn.bound(d.ctx)
	if err != nil {
		return true, err
	}
	defer cancel()
	calls := split(len(holds), topicsAtOnce, d.head, func(all []string, item int) []string {
		return append(all, args[item], holds[item].topic)
	})
	d.conn.runSplit(bounded, checkScript, d.keys, calls, func(first, items int, result rueidis.RedisResult) {
		answers, bad := result.AsStrSlice()
		if bad == nil && len(answers) != items {
			bad = fmt.Errorf("%w: check: %d answers about %d topics", errReply, len(answers), items)
		}
		if bad != nil {
			err = bad
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		for i, answer := range answers {
			d.checked(holds[first+i], session, answer)
		}
	})
	if err != nil {
		d.missed()
		return true, fmt.Errorf("look for messages: %w", err)
	}
	return true, nil
}

// checked takes in the answer to a check: see check.lua. The caller holds d.mu.
func (d *Durability) checked(h *hold, session uint64, answer string) {
	switch {
	case session != d.session || h.state != held || answer == "":
	case answer == "-":
		d.lose(h.consumer, []*hold{h})
	case answer == "+" || parseEntry(answer).compare(h.fetched) > 0:
		h.poke()
	}
}

// takeDue takes topics off those that are due, of consumers that wait, and returns them with their arguments of fetch.lua.
func (d *Durability) takeDue() (holds []*hold, args []string, session uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	const most = fetchTopics * fetchScripts
	for len(d.ready) > 0 && len(holds) < most {
		c := d.ready[0]
		for c.waiting && len(c.due) > 0 && len(holds) < most {
			h := c.due[0]
			c.due = c.due[1:]
			if h.state == held {
				h.due = false
				holds, args = append(holds, h), append(args, h.holder(d), h.fetched.String())
			}
		}
		if c.waiting && len(c.due) > 0 {
			break
		}
		c.queued = false
		d.ready[0] = nil
		if d.ready = d.ready[1:]; len(d.ready) == 0 {
			d.ready = nil
		}
	}
	return holds, args, d.session
}

// fetch reads what is due.
func (d *Durability) fetch() (worked bool, err error) {
	holds, args, session := d.takeDue()
	if len(holds) == 0 {
		return false, nil
	}
	undone := make([]bool, len(holds))
	bounded, cancel, err := d.conn.bound(d.ctx)
	if err != nil {
		return true, err // closed
	}
	defer cancel()
	first := d.args(strconv.Itoa(batchSize), strconv.Itoa(fetchBytes), strconv.Itoa(fetchEach))
	calls := split(len(holds), fetchTopics, first, func(all []string, item int) []string {
		return append(all, args[2*item], args[2*item+1], holds[item].topic)
	})
	d.conn.runSplit(bounded, fetchScript, d.keys, calls, func(first, items int, result rueidis.RedisResult) {
		rows, bad := result.ToArray()
		if bad == nil && len(rows) != items {
			bad = fmt.Errorf("%w: fetch: %d answers about %d topics", errReply, len(rows), items)
		}
		for i := range items {
			if bad != nil {
				undone[first+i] = true
				continue
			}
			h := holds[first+i]
			fetched, wrong := parseFetched(h.topic, rows[i])
			if bad = wrong; bad == nil {
				undone[first+i] = !d.fetched(h, session, fetched)
			}
		}
		if bad != nil {
			err = fmt.Errorf("fetch messages: %w", bad)
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, h := range holds {
		if undone[i] {
			h.poke()
		}
	}
	return true, err
}

// fetched is one topic's answer of fetch.lua.
type fetched struct {
	lost, skipped, more bool
	dropped             uint64
	messages            []multicastregistry.Message
	last                entryID
}

func parseFetched(topic string, row rueidis.RedisMessage) (out fetched, err error) {
	fields, err := row.ToArray()
	if err != nil || len(fields) == 0 {
		return fetched{skipped: true}, err
	}
	status, err := fields[0].ToString()
	switch {
	case err != nil:
		return out, err
	case status == "-":
		return fetched{lost: true}, nil
	case len(fields) < 3 || len(fields)%2 == 0:
		return out, fmt.Errorf("%w: fetch: %d fields", errReply, len(fields))
	}
	dropped, err := fields[1].AsInt64()
	if err != nil {
		return out, err
	}
	before, err := fields[2].ToString()
	if err != nil {
		return out, err
	}
	out.more, out.dropped = status == "+", uint64(dropped)
	_, identity, _ := multicastregistry.ParseTopic(topic)
	known := parseEntry(before)
	out.messages = make([]multicastregistry.Message, 0, (len(fields)-3)/2)
	for i := 3; i < len(fields); i += 2 {
		entry, bad := fields[i].ToString()
		frame, worse := fields[i+1].ToString()
		if bad != nil || worse != nil {
			return out, errors.Join(bad, worse)
		}
		out.last = parseEntry(entry)
		message, ok := parseFrame(frame)
		if !ok {
			continue // nothing of ours
		}
		message.Topic, message.Identity = topic, identity
		message.AckTo = ackAddress(entry, topic, message.ID)
		message.Redelivered = out.last.compare(known) <= 0
		out.messages = append(out.messages, message)
	}
	return out, nil
}

// fetched takes in what was read of a topic, and tells whether it was looked at.
func (d *Durability) fetched(h *hold, session uint64, f fetched) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := h.consumer
	switch {
	case session != d.session || h.state != held:
		return true
	case f.lost:
		d.lose(c, []*hold{h})
		return true
	case f.skipped:
		return false
	}
	if f.last.compare(h.fetched) > 0 {
		h.fetched = f.last
	}
	c.dropped += f.dropped
	some := chunk{hold: h, messages: f.messages, last: h.fetched}
	if h.mention && (!f.more || h.fetched.compare(h.target) >= 0) {
		h.mention, some.caughtUp = false, true
	}
	if len(f.messages) > 0 || some.caughtUp {
		c.chunks = append(c.chunks, some)
		c.buffered += len(f.messages)
	}
	if len(f.messages) > 0 || some.caughtUp || f.dropped > 0 {
		signal(c.ready)
	}
	if c.buffered >= batchSize {
		c.waiting = false // until it has taken them
	}
	if f.more {
		h.poke()
	}
	return true
}
