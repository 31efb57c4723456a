package filter

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

var seedFilters = []string{
	``, `{}`, `null`, `{"a":1}`, `{"a.lt":5,"b":"x"}`, `{"a":{"$gt":1,"$lt":3,"$not":{"$eq":2}}}`, `{"a.\\lt":5}`, `{"\\$a.b\\.c\\\\":null}`,
	`{"$or":[{"a":1},{"$not":{"b":{"$in":[1,"x",null,true]}}}],"$and":[{},{"c":1}]}`, `{"a":9007199254740993,"b":1e300,"c":-0.0}`,
	`{"a":{"$not":{"$not":{"$lt":3}}},"$not":{"a":{"$gte":"é"}}}`, `{"a.regex":"^a+$","a.semver":">=1.2 <2 || ^3.x","a.type":"array"}`,
	`{"$and":[{"$not":{"a":1}},{"$not":{"a":2}},{"$and":[{"a":1}]}]}`, `{"a":1,"a":2}`, `{"a.eq":1,"a":2}`, `{"a":"\u0000\ud800\u2028"}`,
	`{"a":{"$semver":"1 - 2 || ~0.1.2-rc.1"}}`, `{"a":18446744073709551615,"b":18446744073709551616,"c":1e-400}`,
}

// FuzzParse checks that parsing never panics, fails only with a SyntaxError, and that the canonical form is one: it parses
// within the same limits to an equal filter, which prints the same.
func FuzzParse(f *testing.F) {
	for _, src := range seedFilters {
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src string) {
		e, err := Parse(src)
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || e != nil {
				t.Fatalf("Parse(%q) = %v, %v", src, e, err)
			}
			return
		}
		canonical := e.String()
		if !json.Valid([]byte(canonical)) {
			t.Fatalf("%q prints as %q, which is not JSON", src, canonical)
		}
		again, err := Parse(canonical)
		if err != nil {
			t.Fatalf("%q prints as %q: %v", src, canonical, err)
		}
		if !Equal(e, again) || canonical != again.String() {
			t.Fatalf("%q prints as %q, which parses as %q", src, canonical, again)
		}
		var v any
		if err := json.Unmarshal([]byte(canonical), &v); err != nil {
			t.Fatal(err)
		}
		if decoded, err := ParseValue(v); err != nil && !strings.Contains(err.Error(), "finite") {
			t.Fatalf("ParseValue refuses %q: %v", canonical, err)
		} else if err == nil && !strings.ContainsAny(canonical, "0123456789") && !Equal(decoded, e) {
			t.Fatalf("ParseValue reads %q as %q", canonical, decoded)
		}
	})
}

// FuzzMatch checks on arbitrary filters and metadata that evaluation is total, that $not, $ne and $nin are complements,
// that the canonical form decides alike, and that metadata decoded to float64 and to json.Number is the same.
func FuzzMatch(f *testing.F) {
	values := []string{`{}`, `{"a":1,"b":"x"}`, `{"a":null}`, `{"a":[1,"x",null,[2]]}`, `{"a":{"lt":5}}`, `{"a":"1.2.3-rc.1"}`, `{"a":9007199254740993}`}
	for i, src := range seedFilters {
		f.Add(src, values[i%len(values)])
		f.Add(src, values[(i+3)%len(values)])
	}
	f.Fuzz(func(t *testing.T, src, text string) {
		e, err := Parse(src)
		if err != nil {
			return
		}
		var md map[string]any
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if d.Decode(&md) != nil {
			return
		}
		got := Match(e, md)
		if Match(&Expr{Op: Not, Args: []*Expr{e}}, md) == got {
			t.Fatalf("$not of %s is not its complement on %s", e, text)
		}
		if Match(mustParse(t, e.String()), md) != got {
			t.Fatalf("%s decides otherwise than its canonical form %s on %s", src, e, text)
		}
		walk(e, func(leaf *Expr) { checkLeaf(t, leaf, md, text) })
	})
}

func walk(e *Expr, visit func(*Expr)) {
	if !e.Op.Logical() {
		visit(e)
	}
	for _, arg := range e.Args {
		walk(arg, visit)
	}
}

func checkLeaf(t *testing.T, e *Expr, md map[string]any, text string) {
	t.Helper()
	got := Match(e, md)
	complements := map[Op]Op{Eq: Ne, Ne: Eq, In: Nin, Nin: In}
	if op, ok := complements[e.Op]; ok {
		if Match(&Expr{Op: op, Path: e.Path, Value: e.Value, Values: e.Values}, md) == got {
			t.Fatalf("$%s is not the complement of %s on %s", op, e, text)
		}
	}
	if e.Op == In {
		equal := slices.ContainsFunc(e.Values, func(v any) bool { return Match(&Expr{Op: Eq, Path: e.Path, Value: v}, md) })
		if equal != got {
			t.Fatalf("%s is not an OR of $eq on %s", e, text)
		}
	}
	if e.Op == Lte {
		either := Match(&Expr{Op: Lt, Path: e.Path, Value: e.Value}, md) || Match(&Expr{Op: Eq, Path: e.Path, Value: e.Value}, md)
		if either != got {
			t.Fatalf("%s is not $lt or $eq on %s", e, text)
		}
	}
	var value any = md
	for _, key := range e.Path {
		object, _ := value.(map[string]any)
		var ok bool
		if value, ok = object[key]; !ok {
			if positive := e.Op != Ne && e.Op != Nin && !Equal(e, &Expr{Op: Exists, Path: e.Path, Value: false}); got == positive {
				t.Fatalf("%s = %v on a missing field: %s", e, got, text)
			}
			return
		}
	}
	if MatchValue(e, value) != got {
		t.Fatalf("MatchValue of %s is not Match on %s", e, text)
	}
}
