package schema

import (
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

var rooms = Config{Strict: true, Fields: map[string]Field{
	"room":    {Type: String, Required: true, Enum: []any{"lab", "hall"}},
	"name":    {Type: String, MinLength: 2, MaxLength: 5, Pattern: "^[a-zé]+$"},
	"battery": {Type: Number, Minimum: new(0.0), Maximum: new(1.0), Default: 1.0},
	"floor":   {Type: Integer},
	"on":      {Type: Boolean},
	"seen":    {Type: Timestamp},
	"joined":  {Type: Timestamp, Auto: AutoNow},
	"tags":    {Type: Array, MinItems: 1, MaxItems: 2, Items: &Field{Type: String}},
	"at":      {Type: Object, Fields: map[string]Field{"lat": {Type: Number, Required: true}, "by": {Type: String, Default: "gps"}}},
	"any":     {Type: Object},
}}

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))

func TestComplete(t *testing.T) {
	t.Parallel()
	s, err := New(rooms)
	if err != nil {
		t.Fatal(err)
	}
	given := map[string]any{
		"room": "lab", "floor": int64(3), "tags": []any{"x"}, "at": map[string]any{"lat": 1.5}, "any": map[string]any{"x": nil},
		"seen": "2026-01-02T03:04:05Z", "on": true, "name": "zoé",
	}
	before := maps.Clone(given)
	got, err := s.Complete(given, now)
	if err != nil {
		t.Fatal(err)
	}
	want := maps.Clone(given)
	want["battery"], want["joined"], want["at"] = 1.0, "2026-01-02T02:04:05Z", map[string]any{"lat": 1.5, "by": "gps"}
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(given, before) {
		t.Errorf("got %v\nwant %v\nand what was given is now %v", got, want, given)
	}
	if got, err := s.Complete(got, now); err == nil {
		t.Errorf("what the server sets was given: %v", got)
	}
}

func TestViolations(t *testing.T) {
	t.Parallel()
	s, err := New(rooms)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		field       string
		value       any
		at, problem string
	}{
		{"room", "attic", "metadata/room", "one of 'lab', 'hall'"},
		{"room", nil, "metadata/room", ""},
		{"name", "x", "metadata/name", "minLength"},
		{"name", "abcdef", "metadata/name", "maxLength"},
		{"name", "A1", "metadata/name", "pattern"},
		{"battery", 1.5, "metadata/battery", "maximum"},
		{"battery", int64(-1), "metadata/battery", "minimum"},
		{"battery", "full", "metadata/battery", "want number"},
		{"floor", 1.5, "metadata/floor", "want integer"},
		{"floor", 2.0, "", ""},
		{"on", "yes", "metadata/on", "want boolean"},
		{"seen", "yesterday", "metadata/seen", "date-time"},
		{"joined", "2026-01-02T03:04:05Z", "metadata/joined", "set by the server"},
		{"tags", []any{}, "metadata/tags", "minItems"},
		{"tags", []any{"a", "b", "c"}, "metadata/tags", "maxItems"},
		{"tags", []any{"a", int64(1)}, "metadata/tags/1", "want string"},
		{"at", map[string]any{"by": "x"}, "metadata/at", "lat"},
		{"at", map[string]any{"lat": 1.0, "lon": 2.0}, "metadata/at", "'lon' not allowed"},
		{"a/b~c", 1.0, "metadata", "'a/b~c' not allowed"},
	} {
		metadata := map[string]any{"room": "lab"}
		metadata[row.field] = row.value
		_, err := s.Complete(metadata, now)
		bad, _ := errors.AsType[*mr.InvalidError](err)
		if (bad == nil) != (row.at == "") || bad != nil && (bad.Field != row.at || !strings.Contains(bad.Problem, row.problem)) {
			t.Errorf("%s %v: %v; want %s: %s", row.field, row.value, err, row.at, row.problem)
		}
	}
	if _, err := s.Complete(nil, now); err == nil || !strings.Contains(err.Error(), "room") {
		t.Errorf("without metadata: %v", err)
	}
	if _, err := s.Complete(map[string]any{"floor": "x", "on": "y"}, now); err == nil || !strings.Contains(err.Error(), "2 more") {
		t.Errorf("three violations: %v", err)
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	strict, err := New(rooms)
	if err != nil {
		t.Fatal(err)
	}
	lax := rooms
	lax.Strict = false
	open, err := New(lax)
	if err != nil {
		t.Fatal(err)
	}
	for text, at := range map[string]string{
		`{"room": "lab"}`: "", `{"at.lat": 1}`: "", `{"any.thing": 1}`: "", `{"tags": {"$contains": "x"}}`: "", `{}`: "",
		`{"rom": "lab"}`: "filter/rom", `{"$or": [{"room": "lab"}, {"x": 1}]}`: "filter/$or/1/x", `{"at.lon": 1}`: "filter/at.lon",
		`{"$not": {"y": {"$exists": true}}}`: "filter/$not/y/$exists",
	} {
		match, err := filter.DefaultLimits.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		bad, _ := errors.AsType[*mr.InvalidError](strict.CheckFilter(match))
		if bad == nil && at != "" || bad != nil && !strings.HasPrefix(at, bad.Field) {
			t.Errorf("%s: %v, want %q", text, bad, at)
		}
		if err := open.CheckFilter(match); err != nil {
			t.Errorf("where it is not strict: %v", err)
		}
	}
}

func TestNoSchema(t *testing.T) {
	t.Parallel()
	var s *Schema
	metadata := map[string]any{"x": 1.0}
	got, err := s.Complete(metadata, now)
	if err = errors.Join(err, s.CheckFilter(nil), s.CheckPath("sort_by", []string{"x"})); err != nil || !reflect.DeepEqual(got, metadata) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestBadSchemas(t *testing.T) {
	t.Parallel()
	for at, f := range map[string]Field{
		"fields.x.type":       {Type: "text"},
		"fields.x.min_length": {Type: String, MinLength: 2, MaxLength: 1},
		"fields.x.max_length": {Type: Number, MaxLength: 1},
		"fields.x.minimum":    {Type: Number, Minimum: new(2.0), Maximum: new(1.0)},
		"fields.x.min_items":  {Type: Array, MinItems: 2, MaxItems: 1},
		"fields.x.items":      {Type: String, Items: &Field{Type: String}},
		"fields.x.items.type": {Type: Array, Items: &Field{}},
		"fields.x.fields.y.pattern": {Type: Object, Fields: map[string]Field{
			"y": {Type: Integer, Pattern: "a"},
		}},
		"fields.x.auto":    {Type: Timestamp, Auto: "then"},
		"fields.x.default": {Type: Integer, Default: "one"},
		"fields.x":         {Type: String, MaxLength: -1},
		"fields":           {Type: String, Pattern: "("},
	} {
		_, err := New(Config{Fields: map[string]Field{"x": f}})
		if bad, ok := errors.AsType[*mr.InvalidError](err); !ok || bad.Field != at {
			t.Errorf("%s: %v", at, err)
		}
	}
	for _, f := range []Field{{Type: Timestamp, Auto: AutoNow, Required: true}, {Type: String, Required: true, Default: "x"}} {
		if _, err := New(Config{Fields: map[string]Field{"x": f}}); err == nil {
			t.Errorf("%+v passes", f)
		}
	}
}

// BenchmarkComplete measures what checking five fields costs.
func BenchmarkComplete(b *testing.B) {
	s, err := New(rooms)
	if err != nil {
		b.Fatal(err)
	}
	metadata := map[string]any{"room": "lab", "floor": int64(3), "name": "zoe", "on": true, "battery": 0.5}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Complete(metadata, now); err != nil {
			b.Fatal(err)
		}
	}
}
