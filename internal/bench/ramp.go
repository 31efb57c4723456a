package bench

import (
	"cmp"
	"slices"
)

// keeping is what share of the operations of a second have to be done in it, so that the servers keep pace.
const keeping = 0.97

// second is all operations of one second together.
type second struct{ at, offered, done float64 }

// keeps tells whether as much was done as came.
func (s second) keeps() bool { return s.done >= keeping*s.offered }

// bySecond adds up the series: all operations but the arrival of messages, as long as some were due.
func (r *Result) bySecond() []second {
	var all []second
	at := make(map[float64]int)
	for _, s := range r.Series {
		if s.Operation == Arrival {
			continue
		}
		i, ok := at[s.At]
		if !ok {
			i = len(all)
			at[s.At] = i
			all = append(all, second{at: s.At})
		}
		all[i].offered += s.Offered
		all[i].done += s.Done
	}
	all = slices.DeleteFunc(all, func(s second) bool { return s.offered == 0 })
	slices.SortFunc(all, func(a, b second) int { return cmp.Compare(a.at, b.at) })
	return all
}

// keptPace tells up to which offered rate a ramp was kept pace with, and whether that was all of it. The end is the first second
// that is short and is not followed by one that keeps pace: what a second is short of at the start, or by a hiccup, is made up
// for in the next.
func (r *Result) keptPace() (rate float64, all bool) {
	seconds := r.bySecond()
	for i, s := range seconds {
		switch {
		case s.keeps():
			rate = max(rate, s.offered)
		case i+1 == len(seconds) || !seconds[i+1].keeps():
			return rate, false
		}
	}
	return rate, len(seconds) > 0
}

func (r *Result) rampSection() section {
	s := section{ID: "ramp", Title: "Ramp"}
	if r.Plan.RampTo <= 0 || r.Plan.RampTo == r.Plan.Rate {
		return s
	}
	rate, all := r.keptPace()
	switch {
	case len(r.bySecond()) == 0:
		s.Lines = []line{{Text: "Kept pace up to: " + notMeasured + "."}}
	case all:
		s.Lines = []line{{Mood: good, Text: "Kept pace all the way, up to " + perSecond(rate) + "."}}
	case rate == 0:
		s.Lines = []line{{Mood: warning, Text: "Kept pace at no rate: less than 97 % was done from the first second on."}}
	default:
		s.Lines = []line{{Mood: warning, Text: "Kept pace up to " + perSecond(rate) + "; then less than 97 % of it was done."}}
	}
	return s
}
