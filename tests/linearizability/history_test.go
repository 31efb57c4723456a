package linearizability

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/prism-data-layer/prism/client"
)

const (
	// checkTime bounds the check of one identity, which takes some milliseconds.
	checkTime = time.Minute
	// shown is how many operations are told around one that has no place in any order.
	shown = 20
)

// operation is one operation on one identity, from its call to its return, in nanoseconds since the history began.
type operation struct {
	client    int
	call, end int64
	in        input
	out       output
	// since is the revision that a read has to reflect, whichever identity it is of. 0: none.
	since client.Revision
}

// answer is the page that a read got.
type answer struct {
	call int64
	// since is the revision that the read asked for, revision what the page says it reflects.
	since, revision client.Revision
}

// history is all that clients did and were told. Its methods may be called concurrently.
type history struct {
	began time.Time

	mu         sync.Mutex
	operations []operation
	answers    []answer
}

func newHistory() *history { return &history{began: time.Now()} }

// now returns the time as operations have it.
func (h *history) now() int64 { return time.Since(h.began).Nanoseconds() }

func (h *history) add(operations ...operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, operations...)
}

func (h *history) answered(a answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers = append(h.answers, a)
}

// registrations are those that were answered with a revision, in the order of their revisions.
func (h *history) registrations() []operation {
	var all []operation
	for _, o := range h.operations {
		if o.out.ok && o.in.kind <= replace {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b operation) int { return cmp.Compare(a.out.revision, b.out.revision) })
	return all
}

// byIdentity returns the operations as the checker takes them. An operation of unknown outcome may take effect until the end
// of the history, or, when somebody has read what it registers, until then.
func (h *history) byIdentity() map[string][]porcupine.Operation {
	last := h.now()
	read := make(map[string]int64) // values, by when they had been read first
	for _, o := range h.operations {
		if at, ok := read[o.out.value]; o.out.value != "" && (!ok || o.end < at) {
			read[o.out.value] = o.end
		}
	}
	registrations := make(map[string][]operation)
	for _, r := range h.registrations() {
		registrations[r.in.id] = append(registrations[r.in.id], r)
	}
	all := make(map[string][]porcupine.Operation)
	for _, o := range h.operations {
		if o.out.unknown {
			o.end = last
			if at, ok := read[o.in.value]; ok && o.in.kind <= replace {
				o.end = at
			}
		}
		if o.since > 0 {
			o.in.least = latest(registrations[o.in.id], o.since)
		}
		all[o.in.id] = append(all[o.in.id],
			porcupine.Operation{ClientId: o.client, Input: o.in, Output: o.out, Call: o.call, Return: o.end})
	}
	return all
}

// latest returns the highest revision, up to a given one, of registrations in their order; 0 when there is none.
func latest(registrations []operation, most client.Revision) client.Revision {
	n, _ := slices.BinarySearchFunc(registrations, most+1, func(o operation, above client.Revision) int {
		return cmp.Compare(o.out.revision, above)
	})
	if n == 0 {
		return 0
	}
	return registrations[n-1].out.revision
}

// refused returns the identities whose operations have no order.
func (h *history) refused(t testing.TB) (ids []string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.byIdentity()
	for _, id := range slices.Sorted(maps.Keys(all)) {
		switch porcupine.CheckOperationsTimeout(model, all[id], checkTime) {
		case porcupine.Illegal:
			ids = append(ids, id)
		case porcupine.Unknown:
			t.Errorf("%s: %d operations are too many to be checked in %v", id, len(all[id]), checkTime)
		case porcupine.Ok:
		}
	}
	return ids
}

// check fails the test when there is no order of all operations, and when revisions are at odds with it.
func (h *history) check(t testing.TB) {
	t.Helper()
	refused := h.refused(t)
	for _, id := range refused[:min(len(refused), 3)] { // one cause, many victims
		h.show(t, id)
	}
	if len(refused) > 3 {
		t.Errorf("as little order have those on %v", refused[3:])
	}
	for _, fault := range h.misnumbered() {
		t.Error(fault)
	}
}

// show tells what has no order: in a file for a browser, and in the test's output.
func (h *history) show(t testing.TB, id string) {
	t.Helper()
	operations := h.byIdentity()[id]
	_, info := porcupine.CheckOperationsVerbose(model, operations, checkTime)
	path := filepath.Join(t.ArtifactDir(), id+".html")
	if err := porcupine.VisualizePath(model, info, path); err != nil {
		t.Error(err)
	}
	var longest []porcupine.Operation
	for _, placed := range info.PartialLinearizationsOperations()[0] {
		if len(placed) > len(longest) {
			longest = placed
		}
	}
	var b strings.Builder
	tell := func(o porcupine.Operation) {
		fmt.Fprintf(&b, "\n\tclient %d, %v to %v: %s", o.ClientId, time.Duration(o.Call), time.Duration(o.Return),
			describe(o.Input.(input), o.Output.(output)))
	}
	for _, o := range longest[max(0, len(longest)-shown):] {
		tell(o)
	}
	b.WriteString("\n\tAnd these have no place after that:")
	slices.SortFunc(operations, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	left := 0
	for _, o := range operations {
		if !slices.Contains(longest, o) && left < shown {
			tell(o)
			left++
		}
	}
	t.Errorf("%s: the %d operations have no order (see %s, which -artifacts keeps). The longest that there is ends with%s",
		id, len(operations), path, b.String())
}

// misnumbered tells what is wrong with revisions: each registration has one of its own; one that began after another had
// ended has the higher one; and a page reflects what was registered before the call, or what it was to reflect.
func (h *history) misnumbered() (faults []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	values, revisions := make(map[client.Revision]string), make(map[string]client.Revision)
	for _, o := range h.operations {
		if o.out.revision == 0 {
			continue
		}
		value := cmp.Or(o.out.value, o.in.value)
		if v, ok := values[o.out.revision]; ok && v != value {
			faults = append(faults, fmt.Sprintf("revision %d is of %s and of %s", o.out.revision, v, value))
		}
		if r, ok := revisions[value]; ok && r != o.out.revision {
			faults = append(faults, fmt.Sprintf("%s has the revisions %d and %d", value, r, o.out.revision))
		}
		values[o.out.revision], revisions[value] = value, o.out.revision
	}
	ended := h.registrations()
	slices.SortFunc(ended, func(a, b operation) int { return cmp.Compare(a.end, b.end) })
	highest := make([]client.Revision, len(ended)+1) // of the first n that ended
	for i, r := range ended {
		highest[i+1] = max(highest[i], r.out.revision)
	}
	before := func(call int64) client.Revision {
		n, _ := slices.BinarySearchFunc(ended, call, func(o operation, call int64) int { return cmp.Compare(o.end, call) })
		return highest[n]
	}
	for _, r := range ended {
		if least := before(r.call); r.out.revision <= least {
			faults = append(faults, fmt.Sprintf("%s got revision %d, after revision %d was there", r.in.value, r.out.revision, least))
		}
	}
	for _, a := range h.answers {
		if least := cmp.Or(a.since, before(a.call)); a.revision < least {
			faults = append(faults, fmt.Sprintf("a page reflects revision %d, and should reflect %d", a.revision, least))
		}
	}
	return faults
}
