// Package schema says what the metadata of a namespace's identities look like, and what a registration leaves out. A Config is
// turned into a JSON Schema (draft 2020-12), which a library checks; defaults and what the server sets itself are put in before.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// Type is a type of value.
type Type string

// The types. A timestamp is a string in the form of RFC 3339.
const (
	String    Type = "string"
	Number    Type = "number"
	Integer   Type = "integer"
	Boolean   Type = "boolean"
	Timestamp Type = "timestamp"
	Object    Type = "object"
	Array     Type = "array"
)

// Types lists every type.
func Types() []Type { return []Type{String, Number, Integer, Boolean, Timestamp, Object, Array} }

// AutoNow is the only value of Field.Auto: the time of the registration, by the server's clock.
const AutoNow = "now"

// Config describes the metadata of a namespace.
type Config struct {
	// Strict refuses fields that are not described, in metadata and in queries.
	Strict bool
	// Fields are the fields, by name.
	Fields map[string]Field
}

// Field describes one field. Zero values ask for nothing.
type Field struct {
	// Type is required.
	Type Type
	// Required refuses a registration without the field.
	Required bool
	// Enum lists the only values.
	Enum []any
	// MinLength and MaxLength bound a string, in characters; MinItems and MaxItems an array.
	MinLength, MaxLength, MinItems, MaxItems int
	// Minimum and Maximum bound a number; they are included.
	Minimum, Maximum *float64
	// Pattern is a regular expression, in RE2's syntax, that a string must match somewhere.
	Pattern string
	// Default is the value of a registration that leaves the field out.
	Default any
	// Auto is AutoNow, or empty: who sets the field is the server, at every registration, and nobody else.
	Auto string
	// Items describes the elements of an array.
	Items *Field
	// Fields are those of an object. An object without is any object, in a strict schema too.
	Fields map[string]Field
}

// Schema checks and completes metadata. It is safe for concurrent use. A nil Schema accepts everything.
type Schema struct {
	cfg      Config
	compiled *jsonschema.Schema
	printer  *message.Printer
}

// New prepares a schema. The error is an InvalidError that names the field of the configuration.
func New(cfg Config) (*Schema, error) {
	document := map[string]any{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}
	if err := describe(document, cfg.Fields, cfg.Strict, "fields"); err != nil {
		return nil, err
	}
	text, err := json.Marshal(document)
	if err != nil {
		return nil, invalid("fields", "cannot be turned into a JSON Schema: %v", err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, invalid("fields", "cannot be turned into a JSON Schema: %v", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource(resource, parsed); err != nil {
		return nil, invalid("fields", "cannot be turned into a JSON Schema: %v", err)
	}
	s := &Schema{cfg: cfg, printer: message.NewPrinter(language.English)}
	if s.compiled, err = compiler.Compile(resource); err != nil {
		return nil, invalid("fields", "cannot be turned into a JSON Schema: %v", err)
	}
	if err := s.checkDefaults(); err != nil {
		return nil, err
	}
	return s, nil
}

// resource is how the compiler calls the schema, which is read from nowhere.
const resource = "prism:identity_schema"

// checkDefaults refuses defaults that their own field does not allow.
func (s *Schema) checkDefaults() error {
	for name, field := range s.cfg.Fields {
		if field.Default == nil {
			continue
		}
		err := s.compiled.Validate(map[string]any{name: field.Default})
		if bad, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
			for _, leaf := range leaves(bad) {
				if len(leaf.InstanceLocation) > 0 && leaf.InstanceLocation[0] == name {
					return invalid("fields."+name+".default", "%s", leaf.ErrorKind.LocalizedString(s.printer))
				}
			}
		}
	}
	return nil
}

// describe puts fields into a JSON Schema of an object.
func describe(object map[string]any, fields map[string]Field, strict bool, at string) error {
	properties, required := make(map[string]any), []any{}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		field := fields[name]
		described, err := field.describe(strict, at+"."+name)
		if err != nil {
			return err
		}
		properties[name] = described
		if field.Required {
			required = append(required, name)
		}
	}
	object["properties"] = properties
	if len(required) > 0 {
		object["required"] = required
	}
	if strict {
		object["additionalProperties"] = false
	}
	return nil
}

// describe returns the JSON Schema of a field.
func (f *Field) describe(strict bool, at string) (map[string]any, error) {
	if err := f.check(at); err != nil {
		return nil, err
	}
	out := map[string]any{"type": string(f.Type)}
	switch f.Type {
	case Timestamp:
		out["type"], out["format"] = "string", "date-time"
	case Object:
		if f.Fields != nil {
			if err := describe(out, f.Fields, strict, at+".fields"); err != nil {
				return nil, err
			}
		}
	case Array:
		if f.Items != nil {
			items, err := f.Items.describe(strict, at+".items")
			if err != nil {
				return nil, err
			}
			out["items"] = items
		}
	}
	if len(f.Enum) > 0 {
		out["enum"] = f.Enum
	}
	if f.Pattern != "" {
		out["pattern"] = f.Pattern
	}
	for keyword, n := range map[string]int{
		"minLength": f.MinLength, "maxLength": f.MaxLength, "minItems": f.MinItems, "maxItems": f.MaxItems,
	} {
		if n != 0 {
			out[keyword] = n
		}
	}
	if f.Minimum != nil {
		out["minimum"] = *f.Minimum
	}
	if f.Maximum != nil {
		out["maximum"] = *f.Maximum
	}
	return out, nil
}

// check refuses what a field of its type cannot have.
func (f *Field) check(at string) error {
	number := f.Type == Number || f.Type == Integer
	for _, has := range []struct {
		key    string
		set    bool
		sense  bool
		wanted string
	}{
		{"min_length", f.MinLength != 0, f.Type == String, "a string"},
		{"max_length", f.MaxLength != 0, f.Type == String, "a string"},
		{"pattern", f.Pattern != "", f.Type == String, "a string"},
		{"min_items", f.MinItems != 0, f.Type == Array, "an array"},
		{"max_items", f.MaxItems != 0, f.Type == Array, "an array"},
		{"items", f.Items != nil, f.Type == Array, "an array"},
		{"minimum", f.Minimum != nil, number, "a number or an integer"},
		{"maximum", f.Maximum != nil, number, "a number or an integer"},
		{"fields", f.Fields != nil, f.Type == Object, "an object"},
		{"auto", f.Auto != "", f.Type == Timestamp, "a timestamp"},
	} {
		if has.set && !has.sense {
			return invalid(at+"."+has.key, "is for %s, and this is a field of type %q", has.wanted, f.Type)
		}
	}
	if f.Auto != "" && f.Auto != AutoNow {
		return invalid(at+".auto", "expected %q, got %q", AutoNow, f.Auto)
	}
	return f.checkValues(at)
}

// checkValues refuses what contradicts itself.
func (f *Field) checkValues(at string) error {
	switch {
	case !slices.Contains(Types(), f.Type):
		return invalid(at+".type", "expected one of %v, got %q", Types(), f.Type)
	case f.MinLength < 0 || f.MaxLength < 0 || f.MinItems < 0 || f.MaxItems < 0:
		return invalid(at, "a length must not be negative")
	case f.MaxLength != 0 && f.MinLength > f.MaxLength:
		return invalid(at+".min_length", "is more than max_length")
	case f.MaxItems != 0 && f.MinItems > f.MaxItems:
		return invalid(at+".min_items", "is more than max_items")
	case f.Minimum != nil && f.Maximum != nil && *f.Minimum > *f.Maximum:
		return invalid(at+".minimum", "is more than maximum")
	case f.Auto != "" && (f.Required || f.Default != nil || f.Enum != nil):
		return invalid(at+".auto", "is set by the server: required, default and enum make no sense beside it")
	case f.Required && f.Default != nil:
		return invalid(at+".default", "makes no sense for a field that is required")
	}
	return nil
}

// Complete checks metadata and returns it with what the registration left out; it changes nothing that it is given. An error is
// an InvalidError that names the field and the rule.
func (s *Schema) Complete(metadata map[string]any, now time.Time) (map[string]any, error) {
	if s == nil {
		return metadata, nil
	}
	completed, err := complete(metadata, s.cfg.Fields, now, "metadata")
	if err != nil {
		return nil, err
	}
	err = s.compiled.Validate(completed)
	bad, ok := errors.AsType[*jsonschema.ValidationError](err)
	switch {
	case err == nil:
		return completed, nil
	case !ok:
		return nil, invalid("metadata", "cannot be checked: %v", err)
	}
	all := leaves(bad)
	slices.SortStableFunc(all, func(a, b *jsonschema.ValidationError) int {
		return slices.Compare(a.InstanceLocation, b.InstanceLocation)
	})
	return nil, invalid(pointer("metadata", all[0].InstanceLocation), "%s", s.say(all))
}

// say tells the first violation, and how many more there are.
func (s *Schema) say(all []*jsonschema.ValidationError) string {
	text := all[0].ErrorKind.LocalizedString(s.printer)
	if more := len(all) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more of the namespace's identity_schema)", more)
	}
	return text
}

// complete puts defaults and times in.
func complete(object map[string]any, fields map[string]Field, now time.Time, at string) (map[string]any, error) {
	out := object
	set := func(name string, value any) {
		if out = maps.Clone(out); out == nil {
			out = make(map[string]any)
		}
		out[name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		field := fields[name]
		value, given := object[name]
		switch inner, isObject := value.(map[string]any); {
		case field.Auto == AutoNow && given:
			return nil, invalid(pointer(at, []string{name}), "is set by the server: leave it out")
		case field.Auto == AutoNow:
			set(name, now.UTC().Format(time.RFC3339Nano))
		case !given && field.Default != nil:
			set(name, field.Default)
		case given && isObject && field.Fields != nil:
			completed, err := complete(inner, field.Fields, now, pointer(at, []string{name}))
			if err != nil {
				return nil, err
			}
			set(name, completed)
		}
	}
	if out == nil {
		out = make(map[string]any)
	}
	return out, nil
}

// CheckPath returns an InvalidError for a field of a query that a strict schema does not describe. where names what looks at it,
// such as "filter".
func (s *Schema) CheckPath(where string, path []string) error {
	if s == nil || !s.cfg.Strict {
		return nil
	}
	fields := s.cfg.Fields
	for i, name := range path {
		field, known := fields[name]
		switch {
		case !known:
			return invalid(where, "%q is no field of this namespace's identity_schema, which is strict", filter.FormatPath(path[:i+1]))
		case field.Type != Object || field.Fields == nil: // what is below was never described
			return nil
		}
		fields = field.Fields
	}
	return nil
}

// CheckFilter is CheckPath for every field of a filter. A nil Schema, and a nil filter, have nothing to say.
func (s *Schema) CheckFilter(match *filter.Expr) error {
	if s == nil || !s.cfg.Strict {
		return nil
	}
	for e := range match.All() {
		if e.Op.Logical() {
			continue
		}
		if err := s.CheckPath("filter"+e.Pointer(), e.Path); err != nil {
			return err
		}
	}
	return nil
}

// leaves are the violations that have no causes of their own.
func leaves(e *jsonschema.ValidationError) (out []*jsonschema.ValidationError) {
	if len(e.Causes) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	for _, cause := range e.Causes {
		out = append(out, leaves(cause)...)
	}
	return out
}

// pointer is a field with a JSON pointer behind it.
func pointer(field string, path []string) string {
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	parts := []string{field}
	for _, part := range path {
		parts = append(parts, escape.Replace(part))
	}
	return strings.Join(parts, "/")
}

func invalid(field, format string, args ...any) error {
	return &multicastregistry.InvalidError{Field: field, Problem: fmt.Sprintf(format, args...)}
}
