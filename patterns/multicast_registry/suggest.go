package multicastregistry

import (
	"cmp"
	"math/bits"
	"slices"
	"strings"
	"unicode"
)

const (
	// mostFields is how many fields are looked at for such with similar names, for all names of a filter together.
	mostFields = 10_000
	// mostSuggestions is how many are named.
	mostSuggestions = 3
	// longestMistyped is the longest name, in bytes, that is looked at for typing errors.
	longestMistyped = 64
)

// similar returns those of some fields that were probably meant by a name which none of them has, the likeliest first. In order
// of likelihood they are spelled alike but for case, alike but for what separates their words ("sensor_temp" for "sensor.temp"),
// the same within another object ("temp" for "sensor.temp", or the other way round), mistyped, or begin or contain one another.
func similar(path []string, among [][]string) [][]string {
	wanted, rows := spellingOf(path), new(distanceRows)
	type suggestion struct {
		path  []string
		score int
	}
	var best []suggestion
	for _, candidate := range among {
		if slices.Contains(candidate, "") {
			continue // no filter reaches it
		}
		score, ok := wanted.likeness(spellingOf(candidate), rows)
		if !ok {
			continue
		}
		s := suggestion{candidate, score}
		at, _ := slices.BinarySearchFunc(best, s, func(a, b suggestion) int {
			return cmp.Or(a.score-b.score, slices.Compare(a.path, b.path))
		})
		if at < mostSuggestions {
			best = slices.Insert(best, at, s)
			best = best[:min(len(best), mostSuggestions)]
		}
	}
	paths := make([][]string, len(best))
	for i := range best {
		paths[i] = best[i].path
	}
	return paths
}

// spelling is a field's name in the forms in which names are compared.
type spelling struct {
	keys   []string // in lower case
	joined string   // them, with dots
	bare   string   // letters and digits only
}

func spellingOf(path []string) *spelling {
	s := &spelling{keys: make([]string, len(path))}
	for i, key := range path {
		s.keys[i] = strings.ToLower(key)
	}
	s.joined = strings.Join(s.keys, ".")
	s.bare = bareName(s.joined)
	return s
}

func bareName(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, name)
}

// likeness scores a field: the lower, the likelier. It is not ok when there is none.
func (s *spelling) likeness(other *spelling, rows *distanceRows) (score int, ok bool) {
	switch {
	case s.joined == other.joined:
		return 0, true
	case s.bare != "" && s.bare == other.bare:
		return 1, true
	case endsIn(s.keys, other.keys) || endsIn(other.keys, s.keys):
		return 2, true
	}
	score = none
	if d := rows.distance(s.joined, other.joined); d >= 0 {
		score = 3 + 2*d
	}
	if len(s.keys) != len(other.keys) {
		if d := rows.distance(s.keys[len(s.keys)-1], other.keys[len(other.keys)-1]); d >= 0 {
			score = min(score, 4+2*d)
		}
	}
	switch short, long := byLength(s.bare, other.bare); {
	case len(short) >= 3 && strings.HasPrefix(long, short):
		score = min(score, 6)
	case len(short) >= 4 && strings.Contains(long, short):
		score = min(score, 8)
	}
	return score, score < none
}

// none is above every score.
const none = 100

func endsIn(long, short []string) bool {
	return len(short) < len(long) && slices.Equal(long[len(long)-len(short):], short)
}

func byLength(a, b string) (short, long string) {
	if len(a) <= len(b) {
		return a, b
	}
	return b, a
}

// distanceRows is the memory of distance.
type distanceRows struct {
	a, b               []rune
	before, last, next [longestMistyped + 1]int
}

// distance counts the insertions, deletions, replacements and swaps of neighbours between two names; it is negative for those
// that are too far apart to be the same one mistyped.
func (r *distanceRows) distance(one, other string) int {
	if len(one) > longestMistyped || len(other) > longestMistyped {
		return -1
	}
	r.a, r.b = append(r.a[:0], []rune(one)...), append(r.b[:0], []rune(other)...)
	a, b := r.a, r.b
	most := 3
	switch shorter := min(len(a), len(b)); {
	case shorter < 2:
		return -1
	case shorter <= 5:
		most = 1
	case shorter <= 8:
		most = 2
	}
	if max(len(a)-len(b), len(b)-len(a)) > most || bits.OnesCount64(letters(a)^letters(b)) > 2*most {
		return -1
	}
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	if d := r.between(a, b, most); d <= most {
		return d
	}
	return -1
}

// letters is a set of the characters of a name, about: an edit adds one and takes one away at the most.
func letters(name []rune) (set uint64) {
	for _, c := range name {
		set |= 1 << (c & 63)
	}
	return set
}

// between computes the distance where it is no more than most, row by row of the usual table, of each only what is near the
// diagonal.
func (r *distanceRows) between(a, b []rune, most int) int {
	for j := range min(len(b), most) + 1 {
		r.last[j] = j
	}
	for i := range a {
		from, to := max(i-most, 0), min(i+most+1, len(b))
		r.next[from] = most + 1 // what is further from the diagonal than most is more than most
		if from == 0 {
			r.next[0] = i + 1
		}
		r.last[min(i+most+1, longestMistyped)] = most + 1
		least := r.next[from]
		for j := from; j < to; j++ {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			d := min(r.last[j+1]+1, r.next[j]+1, r.last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d = min(d, r.before[j-1]+1)
			}
			r.next[j+1] = d
			least = min(least, d)
		}
		if least > most {
			return least
		}
		r.before, r.last, r.next = r.last, r.next, r.before
	}
	return r.last[len(b)]
}
