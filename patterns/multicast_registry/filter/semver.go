package filter

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// version is a Semantic Version 2.0.0 without its build metadata, which has no part in precedence.
type version struct {
	major, minor, patch uint64
	pre                 string // dot-separated identifiers, "" for a release
}

// parseVersion reads a complete version; a leading v is tolerated. It does not allocate.
func parseVersion(s string) (version, bool) {
	s = strings.TrimPrefix(s, "v")
	s, build, hasBuild := strings.Cut(s, "+")
	core, pre, hasPre := strings.Cut(s, "-")
	if hasBuild && !validIdentifiers(build, false) || hasPre && !validIdentifiers(pre, true) {
		return version{}, false
	}
	major, rest, ok1 := strings.Cut(core, ".")
	minor, patch, ok2 := strings.Cut(rest, ".")
	v := version{pre: pre}
	var ok3, ok4, ok5 bool
	v.major, ok3 = versionPart(major)
	v.minor, ok4 = versionPart(minor)
	v.patch, ok5 = versionPart(patch)
	return v, ok1 && ok2 && ok3 && ok4 && ok5
}

// versionPart reads a number without a leading zero of at most 18 digits, so that adding one never overflows.
func versionPart(s string) (n uint64, ok bool) {
	if s == "" || len(s) > 1 && s[0] == '0' || len(s) > 18 || !digitsOnly(s) {
		return 0, false
	}
	for i := range len(s) {
		n = n*10 + uint64(s[i]-'0')
	}
	return n, true
}

func digitsOnly(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// validIdentifiers checks the dot-separated identifiers of a prerelease or of build metadata; only in a prerelease is a
// leading zero of a number refused.
func validIdentifiers(s string, pre bool) bool {
	for more := true; more; {
		var id string
		id, s, more = strings.Cut(s, ".")
		if id == "" || pre && len(id) > 1 && id[0] == '0' && digitsOnly(id) {
			return false
		}
		for i := range len(id) {
			c := id[i]
			if c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
				return false
			}
		}
	}
	return true
}

func (v version) compare(w version) int {
	if c := cmp.Or(cmp.Compare(v.major, w.major), cmp.Compare(v.minor, w.minor), cmp.Compare(v.patch, w.patch)); c != 0 {
		return c
	}
	switch {
	case v.pre == w.pre:
		return 0
	case v.pre == "":
		return 1
	case w.pre == "":
		return -1
	}
	return comparePrereleases(v.pre, w.pre)
}

// comparePrereleases orders identifier by identifier: numbers by value and below words, words by bytes, and the longer
// list above its own beginning.
func comparePrereleases(a, b string) int {
	for {
		x, restA, moreA := strings.Cut(a, ".")
		y, restB, moreB := strings.Cut(b, ".")
		nx, ny := digitsOnly(x), digitsOnly(y)
		var c int
		switch {
		case nx && ny:
			c = cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y))
		case nx != ny:
			c = boolToInt(ny) - boolToInt(nx)
		default:
			c = strings.Compare(x, y)
		}
		switch {
		case c != 0:
			return c
		case moreA && moreB:
			a, b = restA, restB
		default:
			return boolToInt(moreA) - boolToInt(moreB)
		}
	}
}

// versionRange is an OR of ANDs of comparators, which is what every form of npm's range language comes down to.
type versionRange [][]comparator

// comparator bounds a version from one side, or from both when it is an equality.
type comparator struct {
	op      Op // Eq, Lt, Lte, Gt or Gte
	version version
}

// admits tells whether the text is a version inside the range. As in npm, a prerelease is admitted only by an alternative
// that names a prerelease of the same major.minor.patch.
func (r versionRange) admits(text string) bool {
	v, ok := parseVersion(text)
	if !ok {
		return false
	}
alternatives:
	for _, set := range r {
		named := v.pre == ""
		for _, c := range set {
			if !c.holds(v) {
				continue alternatives
			}
			w := c.version
			named = named || w.pre != "" && w.major == v.major && w.minor == v.minor && w.patch == v.patch
		}
		if named {
			return true
		}
	}
	return false
}

func (c comparator) holds(v version) bool {
	order := v.compare(c.version)
	switch c.op {
	case Lt:
		return order < 0
	case Lte:
		return order <= 0
	case Gt:
		return order > 0
	case Gte:
		return order >= 0
	default:
		return order == 0
	}
}

// parseRange reads npm's range language: comparators that must all hold, alternatives joined by ||, partial versions and
// x, ^, ~ and "1.2 - 2.3".
func parseRange(s string) (versionRange, error) {
	var r versionRange
	for alternative := range strings.SplitSeq(s, "||") {
		set, err := parseAlternative(alternative)
		if err != nil {
			return nil, err
		}
		r = append(r, set)
	}
	return r, nil
}

func parseAlternative(s string) ([]comparator, error) {
	words := strings.Fields(s)
	if len(words) == 0 {
		return nil, errors.New("it is empty (* admits every release)")
	}
	if len(words) == 3 && words[1] == "-" {
		from, err := parsePartial(words[0])
		if err != nil {
			return nil, err
		}
		to, err := parsePartial(words[2])
		return append(from.comparators(">="), to.comparators("<=")...), err
	}
	var set []comparator
	for i := 0; i < len(words); i++ {
		word := strings.TrimLeft(words[i], "<>=~^")
		op := words[i][:len(words[i])-len(word)]
		if word == "" && i+1 < len(words) { // ">= 1.2"
			i++
			word = words[i]
		}
		switch op {
		case "", "=", "<", "<=", ">", ">=", "~", "~>", "^":
		default:
			return nil, fmt.Errorf("unknown operator %q", shorten(op))
		}
		p, err := parsePartial(word)
		if err != nil {
			return nil, err
		}
		set = append(set, p.comparators(op)...)
	}
	return set, nil
}

// partial is a version of which only the first n numbers are given; it is complete when n is 3.
type partial struct {
	version
	n int
}

func parsePartial(s string) (partial, error) {
	bad := fmt.Errorf("%q is not a version", shorten(s))
	if v, ok := parseVersion(s); ok {
		return partial{v, 3}, nil
	}
	var p partial
	wild := false
	parts := strings.Split(strings.TrimPrefix(s, "v"), ".")
	if len(parts) > 3 {
		return p, bad
	}
	for i, part := range parts {
		if part == "x" || part == "X" || part == "*" {
			wild = true
			continue
		}
		n, ok := versionPart(part)
		if !ok || wild {
			return p, bad
		}
		*[]*uint64{&p.major, &p.minor, &p.patch}[i] = n
		p.n = i + 1
	}
	return p, nil
}

// next is the lowest version after all that share the first n numbers, prereleases included.
func (p partial) next(n int) version {
	switch n {
	case 1:
		return version{major: p.major + 1, pre: "0"}
	case 2:
		return version{major: p.major, minor: p.minor + 1, pre: "0"}
	default:
		return version{major: p.major, minor: p.minor, patch: p.patch + 1, pre: "0"}
	}
}

// comparators spells an operator on a perhaps partial version in full comparators.
func (p partial) comparators(op string) []comparator {
	from := comparator{Gte, p.version}
	if p.n == 0 {
		if op == "<" || op == ">" { // nothing lies outside of everything
			return []comparator{{Lt, version{pre: "0"}}}
		}
		return []comparator{from}
	}
	complete := p.n == 3
	switch op {
	case "~", "~>":
		return []comparator{from, {Lt, p.next(min(p.n, 2))}}
	case "^":
		// The first number that is not zero may not change; among zeros, the last one given.
		fixed := p.n
		switch {
		case p.major > 0:
			fixed = 1
		case p.minor > 0:
			fixed = 2
		}
		return []comparator{from, {Lt, p.next(fixed)}}
	case ">=":
		return []comparator{from}
	case ">":
		if complete {
			return []comparator{{Gt, p.version}}
		}
		after := p.next(p.n)
		after.pre = ""
		return []comparator{{Gte, after}}
	case "<":
		if !complete {
			p.pre = "0"
		}
		return []comparator{{Lt, p.version}}
	case "<=":
		if complete {
			return []comparator{{Lte, p.version}}
		}
		return []comparator{{Lt, p.next(p.n)}}
	default:
		if complete {
			return []comparator{{Eq, p.version}}
		}
		return []comparator{from, {Lt, p.next(p.n)}}
	}
}
