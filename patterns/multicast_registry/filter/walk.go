package filter

import "iter"

// Pointer is the JSON pointer to where the condition stands in what was parsed, as a [SyntaxError] would give it: for
// {"battery.lt": 0.2} it is "/battery.lt". An And that is an object of several conditions is where the object is, and so is the
// filter itself: "". It is "" too for an Expr that was built by hand.
//
// What a $not negates stands where the $not does when it is an object of several conditions: the two have the same pointer.
func (e *Expr) Pointer() string {
	if e == nil {
		return ""
	}
	return e.at.String()
}

// All yields the conditions of the filter, each before those in it, with how many of And, Or and Not it stands in. The empty
// filter has none; an empty one within another filter is a condition that always holds.
func (e *Expr) All() iter.Seq2[*Expr, int] {
	return func(yield func(*Expr, int) bool) {
		if !e.MatchesAll() {
			e.walk(0, yield)
		}
	}
}

func (e *Expr) walk(depth int, yield func(*Expr, int) bool) bool {
	if !yield(e, depth) {
		return false
	}
	for _, arg := range e.Args {
		if arg == nil {
			arg = all
		}
		if !arg.walk(depth+1, yield) {
			return false
		}
	}
	return true
}
