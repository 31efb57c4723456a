package bench

import (
	"fmt"
	"strings"
)

// deliverySection holds reports against what arrived.
func (r *Result) deliverySection() section {
	s := section{ID: "delivery", Title: "Delivery"}
	d := r.Delivery
	if d == nil {
		return s
	}
	asked := counted(d.Multicasts, "multicast was answered", "multicasts were answered")
	if d.Unanswered > 0 {
		asked += "; " + counted(d.Unanswered, "was not, and what became of its messages is unknown",
			"were not, and what became of their messages is unknown")
	}
	s.Lines = append(s.Lines, line{Text: asked + "."})
	if d.Multicasts > 0 {
		s.Lines = append(s.Lines, line{Text: d.equation()})
	}
	arrived := "received " + thousands(d.Received) + ", repeats " + thousands(d.Repeats)
	if d.Dropped > 0 {
		arrived += ", dropped by the server for slow subscribers " + thousands(d.Dropped)
	}
	if d.Lost > 0 {
		arrived += ", lost " + thousands(d.Lost) + " (which at-most-once allows)"
	}
	s.Lines = append(s.Lines, line{Text: arrived})
	s.Lines = append(s.Lines, d.judgement()...)
	return s
}

// equation writes how the targets add up. Where they do not, it says so.
func (d *Delivery) equation() string {
	sum := d.Delivered + d.Pending + d.Failed + d.TimedOut
	var reasons []string
	explained := uint64(0)
	for _, reason := range mostFirst(d.Reasons) {
		reasons = append(reasons, plain(reason)+" "+thousands(d.Reasons[reason]))
		explained += d.Reasons[reason]
	}
	inFailed, after := "", ""
	if len(reasons) > 0 {
		why := " (" + strings.Join(reasons, ", ") + ")"
		if explained == d.Failed {
			inFailed = why
		} else {
			after = why
		}
	}
	sign := "="
	if sum != d.Targets {
		sign = "≠"
	}
	return fmt.Sprintf("targets %s %s %s delivered + %s pending + %s failed%s + %s timed out%s",
		thousands(d.Targets), sign, thousands(d.Delivered), thousands(d.Pending), thousands(d.Failed), inFailed,
		thousands(d.TimedOut), after)
}

// judgement says how much is accounted for, and names what must not be.
func (d *Delivery) judgement() []line {
	accounted := share(d.Accounted(), 100) + " accounted for"
	if d.Targets == 0 {
		accounted = "nothing to account for"
	}
	if d.Violations() == 0 {
		return []line{{Mood: good, Text: accounted + ", no violations"}}
	}
	lines := []line{{Mood: bad, Text: accounted + ", " + counted(d.Violations(), "violation", "violations") + ":"}}
	for _, v := range []struct {
		n         uint64
		one, many string
	}{
		{d.WrongCount, "report does not add up to the size of its group", "reports do not add up to the size of their groups"},
		{
			d.Missing, "message was reported as delivered and acknowledged, and never received",
			"messages were reported as delivered and acknowledged, and never received",
		},
		{d.Contradicted, "message was reported as failed, yet received", "messages were reported as failed, yet received"},
		{
			d.Uninvited, "message was received by somebody it was not for",
			"messages were received by somebody they were not for",
		},
		{
			d.Repeated, "message was received again, which the delivery mode does not allow",
			"messages were received again, which the delivery mode does not allow",
		},
		{d.Corrupted, "message had another content than was sent", "messages had another content than was sent"},
	} {
		if v.n > 0 {
			lines = append(lines, line{Mood: bad, Text: counted(v.n, v.one, v.many)})
		}
	}
	return lines
}
