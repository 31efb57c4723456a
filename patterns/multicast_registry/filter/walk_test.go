package filter

import (
	"fmt"
	"strings"
	"testing"
)

func TestAllAndPointer(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		`{}`:                  ``,
		`{"a": 1}`:            `0 /a {"a":1}`,
		`{"b.lt": 2, "a": 1}`: `0  {"a":1,"b":{"$lt":2}}; 1 /a {"a":1}; 1 /b.lt {"b":{"$lt":2}}`,
		`{"a/b~": {"$gte": 1, "$lt": 3}}`: `0  {"a/b~":{"$lt":3,"$gte":1}}; 1 /a~1b~0/$lt {"a/b~":{"$lt":3}}; ` +
			`1 /a~1b~0/$gte {"a/b~":{"$gte":1}}`,
		`{"a": {"$not": {"$eq": 1}}}`: `0 /a/$not {"a":{"$not":{"$eq":1}}}; 1 /a/$not/$eq {"a":1}`,
		`{"a": {"$not": {"$gt": 1, "$lt": 3}}}`: `0 /a/$not {"a":{"$not":{"$lt":3,"$gt":1}}}; 1 /a/$not {"a":{"$lt":3,"$gt":1}}; ` +
			`2 /a/$not/$lt {"a":{"$lt":3}}; 2 /a/$not/$gt {"a":{"$gt":1}}`,
		`{"$or": [{"a": {"$in": [1]}}, {}, {"b": 1, "$not": {"c": 2}}]}`: `0 /$or {"$or":[{"a":{"$in":[1]}},{},{"b":1,"c":{"$not":{"$eq":2}}}]}; ` +
			`1 /$or/0/a/$in {"a":{"$in":[1]}}; 1 /$or/1 {}; 1 /$or/2 {"b":1,"c":{"$not":{"$eq":2}}}; 2 /$or/2/b {"b":1}; ` +
			`2 /$or/2/$not {"c":{"$not":{"$eq":2}}}; 3 /$or/2/$not/c {"c":2}`,
		`{"z": 1, "$and": [{"b": 1}, {"a": 1}]}`: `0  {"z":1,"$and":[{"a":1},{"b":1}]}; 1 /z {"z":1}; ` +
			`1 /$and {"a":1,"b":1}; 2 /$and/1/a {"a":1}; 2 /$and/0/b {"b":1}`,
	} {
		e, err := Parse(source)
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		var got []string
		for clause, depth := range e.All() {
			got = append(got, fmt.Sprintf("%d %s %s", depth, clause.Pointer(), clause))
			if len(e.Args) > 0 && depth == 0 {
				for range clause.All() {
					break // leaves nothing behind
				}
			}
		}
		if all := strings.Join(got, "; "); all != want {
			t.Errorf("%s:\n%s, want\n%s", source, all, want)
		}
	}
	byHand := &Expr{Op: Not, Args: []*Expr{nil}}
	n := 0
	for range byHand.All() {
		n++
	}
	if n != 2 || byHand.Pointer() != "" || (*Expr)(nil).Pointer() != "" {
		t.Errorf("%d conditions at %q", n, byHand.Pointer())
	}
	for range (*Expr)(nil).All() {
		t.Error("no filter has no conditions")
	}
}
