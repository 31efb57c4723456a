package index

import (
	"context"
	"slices"
	"strings"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// An evaluator computes what a filter selects from a segment. While it does, the segment is locked shared.
type evaluator struct {
	*scratch

	segment *segment
	pending *node // what has to be found out first, with the segment not locked
}

// Costs in nanoseconds, roughly; they only decide between two ways to the same answer.
const (
	costFind    = 200 // a term in a dictionary
	costPosting = 10  // uniting one more posting of a few documents
	costSet     = 500 // an operation on bitmaps
	costLookUp  = 200 // a field of one document
	costString  = 25  // looking into a string
	costRegex   = 300
)

// mostCandidates is how many documents are looked at one by one while a segment is locked.
const mostCandidates = 4096

// eval returns the set of what a node selects.
func (e *evaluator) eval(n *node) set {
	switch n.op {
	case filter.And:
		return e.evalAnd(n.args)
	case filter.Or:
		all := set{}
		for _, arg := range n.args {
			if all = e.or(all, e.eval(arg)); e.pending != nil {
				return set{}
			}
		}
		return all
	case filter.Not:
		return e.eval(n.args[0]).complement()
	default:
		return e.leaf(n)
	}
}

// evalAnd begins with what is cheap and leaves little. What would cost more than looking at each document that is left is
// done that way.
func (e *evaluator) evalAnd(args []*node) set {
	if len(args) == 1 {
		return e.eval(args[0])
	}
	type step struct {
		node        *node
		cost, score int
	}
	var few [8]step
	steps := few[:0]
	for _, arg := range args {
		cost, count := e.estimate(arg)
		s := step{arg, cost, cost + count}
		at, _ := slices.BinarySearchFunc(steps, s, func(a, b step) int { return a.score - b.score })
		steps = slices.Insert(steps, at, s)
	}
	all := everything
	for _, s := range steps {
		switch {
		case all.empty():
			return set{}
		case !all.not && all.n <= mostCandidates && all.n*s.node.costPerDocument() < s.cost:
			all = e.candidates(all, s.node)
		default:
			all = e.and(all, e.eval(s.node))
		}
		if e.pending != nil {
			return set{}
		}
	}
	return all
}

// candidates looks at each document of a set.
func (e *evaluator) candidates(among set, n *node) set {
	slots := e.slots(among)
	out := e.empty(len(slots))
	for _, slot := range slots {
		if n.matches(e.segment.records[slot].encoded()) {
			out = append(out, slot)
		}
	}
	return listed(out)
}

// costPerDocument is what it costs to look at one document.
func (n *node) costPerDocument() int {
	cost := 0
	for _, arg := range n.args {
		cost += arg.costPerDocument()
	}
	switch {
	case n.op.Logical():
		return cost
	case n.op == filter.Regex || n.op == filter.Semver:
		return costLookUp + costRegex
	default:
		return costLookUp
	}
}

// estimate tells what eval would cost, and at most how many documents it would select.
func (e *evaluator) estimate(n *node) (cost, count int) {
	if n.op.Logical() {
		for _, arg := range n.args {
			c, k := e.estimate(arg)
			cost, count = cost+c+costSet, count+k
		}
		if n.op != filter.Or {
			count = e.segment.n
		}
		return cost, min(count, e.segment.n)
	}
	f := e.segment.fields[n.field]
	if f == nil || n.never {
		return 0, 0 // or everything, which costs nothing either
	}
	switch n.op {
	case filter.Eq:
		return costFind, e.term(f, n.operand).n
	case filter.In:
		return costFind * len(n.list), f.present()
	case filter.Ne, filter.Nin:
		return costFind * max(1, len(n.list)), e.segment.n
	case filter.Lt, filter.Lte, filter.Gt, filter.Gte, filter.StartsWith:
		terms := e.rangeTerms(f, n)
		return costFind + costPosting*terms, f.present()
	case filter.Contains, filter.EndsWith:
		return costFind + costString*f.texts.n, f.present()
	case filter.Regex, filter.Semver:
		return costRegex * f.texts.n, f.present()
	default:
		return costSet, f.present()
	}
}

// leaf is eval for a field operator.
func (e *evaluator) leaf(n *node) set {
	f := e.segment.fields[n.field]
	if f == nil || n.never {
		return set{not: n.whereMissing()}
	}
	o := n.operand
	switch n.op {
	case filter.Eq:
		return e.term(f, o)
	case filter.Ne:
		return e.term(f, o).complement()
	case filter.In:
		return e.in(f, n.list)
	case filter.Nin:
		return e.in(f, n.list).complement()
	case filter.Lt, filter.Lte, filter.Gt, filter.Gte, filter.StartsWith:
		if o.kind == numeric {
			from, to := bounds(&f.numbers, n.op, o.number)
			return span(e, &f.numbers, from, to, f, numeric)
		}
		from, to := textBounds(f, n.op, o.text)
		return span(e, &f.texts, from, to, f, textual)
	case filter.Contains:
		return e.contains(f, o)
	case filter.EndsWith:
		return e.scan(f, func(t text) bool { return strings.HasSuffix(string(t), string(o.text)) })
	case filter.Regex, filter.Semver:
		return e.judge(f, n)
	case filter.Exists:
		present := e.present(f)
		present.not = !o.yes
		return present
	default:
		return f.types[o.kind].view()
	}
}

func (e *evaluator) present(f *field) set {
	all := set{}
	for i := range f.types {
		all = e.or(all, f.types[i].view())
	}
	return all
}

// term is what has a scalar, as the field or in it.
func (e *evaluator) term(f *field, o operand) set {
	switch o.kind {
	case null:
		return e.or(f.types[null].view(), f.nulls.view())
	case boolean:
		return f.bools[truth(o.yes)].view()
	case numeric:
		return f.numbers.find(o.number).view()
	default:
		return f.texts.find(o.text).view()
	}
}

func (e *evaluator) in(f *field, list []operand) set {
	all := sum{scratch: e.scratch}
	for _, o := range list {
		switch o.kind {
		case null:
			all.add(&f.types[null])
			all.add(&f.nulls)
		case boolean:
			all.add(&f.bools[truth(o.yes)])
		case numeric:
			all.add(f.numbers.find(o.number))
		default:
			all.add(f.texts.find(o.text))
		}
	}
	return all.set()
}

// contains is a substring of a string, and an element of an array.
func (e *evaluator) contains(f *field, o operand) set {
	elements := e.and(e.term(f, o), f.types[array].view())
	if o.kind != textual || f.types[textual].n == 0 {
		return elements
	}
	texts := e.scan(f, func(t text) bool { return strings.Contains(string(t), string(o.text)) })
	if f.types[array].n > 0 {
		texts = e.and(texts, f.types[textual].view())
	}
	return e.or(texts, elements)
}

// scan looks at every string.
func (e *evaluator) scan(f *field, holds func(text) bool) set {
	all := sum{scratch: e.scratch}
	f.texts.between(position{}, f.texts.end(), func(t text, p *posting) bool {
		if holds(t) {
			all.add(p)
		}
		return true
	})
	return all.set()
}

// bounds are the terms for which a comparison holds.
func bounds[K key[K]](d *dictionary[K], op filter.Op, k K) (from, to position) {
	to = d.end()
	switch op {
	case filter.Lt:
		to, _ = d.seek(k)
	case filter.Lte:
		to = d.after(k)
	case filter.Gt:
		from = d.after(k)
	default:
		from, _ = d.seek(k)
	}
	return from, to
}

// textBounds are the strings for which a comparison holds, or which begin with one.
func textBounds(f *field, op filter.Op, t text) (from, to position) {
	if op != filter.StartsWith {
		return bounds(&f.texts, op, t)
	}
	from, _ = f.texts.seek(t)
	to = f.texts.end()
	for i := len(t) - 1; i >= 0; i-- {
		if t[i] < 0xff {
			to, _ = f.texts.seek(t[:i] + text([]byte{t[i] + 1}))
			break
		}
	}
	return from, to
}

// rangeTerms tells how many postings span would unite.
func (e *evaluator) rangeTerms(f *field, n *node) int {
	if n.operand.kind == numeric {
		from, to := bounds(&f.numbers, n.op, n.operand.number)
		return f.numbers.terms(from, to)
	}
	from, to := textBounds(f, n.op, n.operand.text)
	return f.texts.terms(from, to)
}

// span unites the postings between two positions, or takes all the others away, whichever are fewer. Only where there are no
// arrays is a document in one posting at most.
func span[K key[K]](e *evaluator, d *dictionary[K], from, to position, f *field, k kind) set {
	all := sum{scratch: e.scratch}
	if f.types[array].n > 0 || f.bare.n > 0 || 2*d.terms(from, to) <= d.n {
		d.unite(from, to, &all)
		return all.set()
	}
	d.unite(position{}, from, &all)
	d.unite(to, d.end(), &all)
	return e.subtract(f.types[k].view(), all.set())
}

// A memo is what an operator that takes long says of the strings of one segment's field.
type memo struct {
	segment *segment
	terms   []text // in order
	holds   []bool
}

// mostJudged is how many strings are judged while a segment is locked.
const mostJudged = 2048

// judge is scan for operators that take long. When there are many strings, it wants them to be judged first.
func (e *evaluator) judge(f *field, n *node) set {
	var known memo
	switch {
	case n.memo != nil && n.memo.segment == e.segment:
		known = *n.memo
	case f.texts.n > mostJudged:
		e.pending = n
		return set{}
	}
	if f.texts.n <= mostJudged {
		return e.scan(f, n.verdict)
	}
	return e.scan(f, func(t text) bool {
		for len(known.terms) > 0 && known.terms[0] < t {
			known.terms, known.holds = known.terms[1:], known.holds[1:]
		}
		if len(known.terms) > 0 && known.terms[0] == t {
			return known.holds[0]
		}
		return filter.MatchValue(n.expr, string(t))
	})
}

// verdict judges a string, which other segments may have too.
func (n *node) verdict(t text) bool {
	holds, known := n.verdicts[t]
	if known {
		return holds
	}
	holds = filter.MatchValue(n.expr, string(t))
	if n.verdicts == nil {
		n.verdicts = make(map[text]bool)
	}
	if len(n.verdicts) < 2*mostJudged {
		n.verdicts[t] = holds
	}
	return holds
}

// learn judges the strings of a segment, which is locked only while they are copied.
func (n *node) learn(ctx context.Context, s *segment) error {
	n.memo = &memo{segment: s}
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := len(n.memo.terms)
		more = n.copyTerms(s)
		for _, t := range n.memo.terms[start:] {
			n.memo.holds = append(n.memo.holds, filter.MatchValue(n.expr, string(t)))
		}
	}
	return nil
}

// copyTerms copies some more strings, and tells whether there may be others.
func (n *node) copyTerms(s *segment) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f := s.fields[n.field]
	if f == nil {
		return false
	}
	known := &n.memo.terms
	from := position{}
	if len(*known) > 0 {
		from = f.texts.after((*known)[len(*known)-1])
	}
	limit := len(*known) + mostJudged
	f.texts.between(from, f.texts.end(), func(t text, _ *posting) bool {
		*known = append(*known, t)
		return len(*known) < limit
	})
	return len(*known) == limit
}
