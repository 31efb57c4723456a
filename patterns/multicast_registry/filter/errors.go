package filter

import (
	"fmt"
	"slices"
	"strings"
)

// A SyntaxError says where in a filter something is wrong and what was expected there. Parsing returns no other error.
type SyntaxError struct {
	// Pointer is the RFC 6901 JSON pointer to the offending value within the filter; "" is the whole filter. For a name
	// that is wrong it points to the value under that name.
	Pointer string
	// Msg says what was expected and what was found, without the pointer.
	Msg string
}

// Error gives the pointer and the message, such as `filter: /battery/$lt: expected a number or a string, got an object`.
func (e *SyntaxError) Error() string {
	if e.Pointer == "" {
		return "filter: " + e.Msg
	}
	return "filter: " + e.Pointer + ": " + e.Msg
}

// A pointer is a JSON pointer that is only spelled out when an error needs it.
type pointer struct {
	parent *pointer
	key    string
}

func (p *pointer) child(key string) *pointer { return &pointer{parent: p, key: key} }

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

func (p *pointer) String() string {
	var parts []string
	for ; p != nil; p = p.parent {
		parts = append(parts, "/"+pointerEscapes.Replace(p.key))
	}
	slices.Reverse(parts)
	return strings.Join(parts, "")
}

func (p *pointer) errorf(format string, args ...any) error {
	return &SyntaxError{Pointer: p.String(), Msg: fmt.Sprintf(format, args...)}
}

// describe names a JSON value for a message.
func describe(v any) string {
	switch s := scalarOf(v); s.kind {
	case kindNull:
		return "null"
	case kindBool:
		return "a bool"
	case kindNumber:
		return "a number"
	case kindString:
		return "a string"
	case kindArray:
		return "an array"
	case kindObject:
		return "an object"
	default:
		return fmt.Sprintf("a Go value of type %T", v)
	}
}

// shorten keeps what an error quotes to a readable length.
func shorten(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// unknown is the end of a message about a name that is not among the legal ones.
func unknown(name string, legal []string) string {
	if near := nearest(name, legal); near != "" {
		return "did you mean " + near + "?"
	}
	return "expected one of " + strings.Join(legal, ", ")
}

// nearest finds the legal name that was probably meant, or "".
func nearest(name string, legal []string) string {
	name = strings.ToLower(strings.TrimPrefix(name, "$"))
	if len(name) < 2 || len(name) > 20 {
		return ""
	}
	best, bestScore := "", 6 // two edits at most; a different first letter costs half an edit more
	for _, l := range legal {
		bare := strings.TrimPrefix(l, "$")
		score := 2 * editDistance(name, bare)
		if score >= 2*min(len(name), len(bare)) {
			continue // nothing in common
		}
		if len(name) >= 4 && strings.HasPrefix(bare, name) {
			score = 1
		}
		if name[0] != bare[0] {
			score++
		}
		if score < bestScore {
			best, bestScore = l, score
		}
	}
	return best
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours between two short names.
func editDistance(a, b string) int {
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
