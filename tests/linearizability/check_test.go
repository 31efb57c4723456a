package linearizability

import (
	"slices"
	"strings"
	"testing"

	"github.com/prism-data-layer/prism/client"
)

// at makes an operation of the identity x, from one time to another.
func at(call, end int64, k kind, value string, out output) operation {
	return operation{call: call, end: end, in: input{kind: k, id: "x", value: value}, out: out}
}

func done(revision client.Revision) output { return output{ok: true, revision: revision} }

func saw(value string, revision client.Revision) output {
	return output{ok: true, value: value, revision: revision}
}

// until makes an answer tell when a lease ends.
func until(expires int64, o output) output {
	o.expires = expires
	return o
}

// asOf makes a read one that has to reflect a revision.
func asOf(revision client.Revision, o operation) operation {
	o.since = revision
	return o
}

// TestChecker tells histories that have an order from those that have none.
func TestChecker(t *testing.T) {
	t.Parallel()
	no, unknown, yes := output{}, output{unknown: true}, output{ok: true}
	for name, row := range map[string]struct {
		history []operation
		refused bool
	}{
		"one after the other": {history: []operation{
			at(0, 1, create, "a", done(1)), at(2, 3, create, "b", no), at(4, 5, heartbeat, "", yes), at(6, 7, read, "", saw("a", 1)),
			at(8, 9, replace, "c", done(3)), at(10, 11, unregisterIf, "a", no), at(12, 13, read, "", saw("c", 3)),
			at(14, 15, unregisterIf, "c", yes), at(16, 17, unregister, "", no), at(18, 19, read, "", no), at(20, 21, heartbeat, "", no),
		}},
		"created twice": {refused: true, history: []operation{at(0, 9, create, "a", done(1)), at(0, 9, create, "b", done(2))}},
		"created twice, removed between": {history: []operation{
			at(0, 9, create, "a", done(1)), at(0, 9, create, "b", done(3)), at(0, 9, unregister, "", yes),
		}},
		"refused by nothing":    {refused: true, history: []operation{at(0, 1, create, "a", no)}},
		"removed twice":         {refused: true, history: []operation{at(0, 1, create, "a", done(1)), at(2, 9, unregister, "", yes), at(2, 9, unregister, "", yes)}},
		"removed in vain":       {refused: true, history: []operation{at(0, 1, create, "a", done(1)), at(2, 3, unregister, "", no)}},
		"another removed":       {refused: true, history: []operation{at(0, 1, create, "a", done(1)), at(2, 3, replace, "b", done(2)), at(4, 5, unregisterIf, "a", yes)}},
		"the meant not removed": {refused: true, history: []operation{at(0, 1, create, "a", done(1)), at(4, 5, unregisterIf, "a", no)}},
		"heartbeat of nothing":  {refused: true, history: []operation{at(0, 1, heartbeat, "", yes)}},
		"heartbeat in vain":     {refused: true, history: []operation{at(0, 1, create, "a", done(1)), at(2, 3, heartbeat, "", no)}},
		"stale read":            {refused: true, history: []operation{at(0, 1, create, "a", done(1)), at(2, 3, replace, "b", done(2)), at(4, 5, read, "", saw("a", 1))}},
		"read meanwhile":        {history: []operation{at(0, 1, create, "a", done(1)), at(2, 5, replace, "b", done(2)), at(3, 4, read, "", saw("a", 1))}},
		"read back and forth": {refused: true, history: []operation{
			at(0, 1, create, "a", done(1)), at(2, 9, replace, "b", done(2)), at(3, 4, read, "", saw("b", 2)), at(5, 6, read, "", saw("a", 1)),
		}},
		"read of nothing":      {refused: true, history: []operation{at(0, 1, create, "a", done(1)), at(2, 3, read, "", no)}},
		"read of the unheard":  {refused: true, history: []operation{at(0, 1, read, "", saw("a", 1))}},
		"revisions fall":       {refused: true, history: []operation{at(0, 1, create, "a", done(2)), at(2, 3, replace, "b", done(1))}},
		"unknown, and it was":  {history: []operation{at(0, 1, create, "a", unknown), at(2, 3, read, "", saw("a", 1)), at(4, 5, create, "b", no)}},
		"unknown, it was not":  {history: []operation{at(0, 1, create, "a", unknown), at(2, 3, read, "", no), at(4, 5, create, "b", done(1))}},
		"unknown, it was late": {history: []operation{at(0, 1, replace, "a", unknown), at(2, 3, read, "", no), at(4, 5, read, "", saw("a", 1))}},
		"unknown, twice": {refused: true, history: []operation{
			at(0, 1, replace, "a", unknown), at(2, 3, read, "", saw("a", 1)), at(4, 5, unregister, "", yes), at(6, 7, read, "", saw("a", 1)),
		}},
		"unknown removals": {history: []operation{
			at(0, 1, create, "a", done(1)), at(2, 3, unregister, "", unknown), at(2, 3, unregisterIf, "a", unknown), at(4, 5, read, "", saw("a", 1)),
			at(6, 7, read, "", no),
		}},
		"unknown removal of another": {refused: true, history: []operation{
			at(0, 1, create, "a", done(1)), at(2, 3, unregisterIf, "b", unknown), at(4, 5, read, "", no),
		}},
		"renewed": {history: []operation{
			at(0, 1, create, "a", until(10, done(1))), at(2, 3, heartbeat, "", until(12, yes)), at(4, 5, read, "", until(12, saw("a", 1))),
			at(6, 7, replace, "b", until(16, done(3))), at(8, 9, heartbeat, "", until(17, yes)), at(8, 10, read, "", until(16, saw("b", 3))),
		}},
		"a lease from before": {refused: true, history: []operation{
			at(0, 1, create, "a", until(10, done(1))), at(2, 3, heartbeat, "", until(12, yes)), at(4, 5, read, "", until(10, saw("a", 1))),
		}},
		"read as of a revision": {history: []operation{
			at(0, 3, create, "a", done(1)), at(4, 5, replace, "b", done(2)), asOf(1, at(0, 7, read, "", saw("a", 1))),
		}},
		"read as of before it": {refused: true, history: []operation{
			at(0, 1, create, "a", done(1)), at(2, 5, replace, "b", done(2)), asOf(2, at(2, 7, read, "", saw("a", 1))),
		}},
		"nothing as of before it": {refused: true, history: []operation{at(0, 3, create, "a", done(1)), asOf(1, at(0, 7, read, "", no))}},
		"nothing as of a revision": {history: []operation{
			at(0, 3, create, "a", done(1)), at(4, 9, unregister, "", unknown), asOf(1, at(0, 7, read, "", no)),
		}},
	} {
		h := newHistory()
		h.add(row.history...)
		if got := len(h.refused(t)) > 0; got != row.refused {
			t.Errorf("%s: refused is %t", name, got)
		}
	}
}

// TestRevisions looks at the order of revisions.
func TestRevisions(t *testing.T) {
	t.Parallel()
	first, second := at(0, 1, create, "a", done(3)), at(2, 3, replace, "b", done(5))
	for name, row := range map[string]struct {
		operations []operation
		answers    []answer
		want       string
	}{
		"as they should be": {operations: []operation{first, second, at(4, 5, read, "", saw("b", 5))}, answers: []answer{{2, 0, 3}, {4, 0, 6}}},
		"two for one":       {operations: []operation{first, at(2, 3, read, "", saw("a", 4))}, want: "a has the revisions 3 and 4"},
		"one for two":       {operations: []operation{first, at(2, 3, replace, "b", done(3))}, want: "revision 3 is of a and of b"},
		"downwards":         {operations: []operation{second, at(4, 5, replace, "c", done(4))}, want: "c got revision 4"},
		"an old page":       {operations: []operation{first, second}, answers: []answer{{4, 0, 4}}, want: "reflects revision 4, and should reflect 5"},
		"an older page":     {operations: []operation{first, second}, answers: []answer{{0, 3, 2}}, want: "reflects revision 2, and should reflect 3"},
	} {
		h := newHistory()
		h.operations, h.answers = row.operations, row.answers
		got := h.misnumbered()
		if row.want == "" && len(got) == 0 {
			continue
		}
		if !slices.ContainsFunc(got, func(s string) bool { return row.want != "" && strings.Contains(s, row.want) }) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
