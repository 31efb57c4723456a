package multicastregistry

import "strings"

// Field is what there is to know of one field of the metadata of identities.
type Field struct {
	// Path are the keys from the outside in.
	Path []string
	// Present is how many identities have the field.
	Present int
	// Types counts them by the type that the field has there, under the names that filter.Type takes. Those that do not occur
	// are left out.
	Types map[string]int
	// Distinct is how many different scalars there are, as the field or in it: exact up to MostDistinct.
	Distinct int
}

// MostDistinct is how many different values of a field are told apart.
const MostDistinct = 100_000

// Source is where filters are answered.
type Source uint8

// The sources.
const (
	// SourceIndex is an index in this process: the cost of an answer follows what is returned.
	SourceIndex Source = iota + 1
	// SourceNative is the registry's backend.
	SourceNative
	// SourceScan means that every identity is fetched and looked at in this process.
	SourceScan
)

// Shape is a set of things that a field can be: of a type, or a scalar of a type or an array with such a scalar in it.
type Shape uint16

// The shapes. An operator that looks for a number, for example, looks for HasNumber.
const (
	IsNull Shape = 1 << iota
	IsBool
	IsNumber
	IsString
	IsArray
	IsObject
	HasNull
	HasBool
	HasNumber
	HasString

	// AnyShape is that of every field that is there.
	AnyShape = IsNull | IsBool | IsNumber | IsString | IsArray | IsObject
)

// typeNames are the names of filter.Type, in the order of the shapes.
var typeNames = [...]string{"null", "bool", "number", "string", "array", "object"}

// ShapeOf returns all shapes that a field of this value has.
func ShapeOf(value any) Shape {
	switch v := value.(type) {
	case map[string]any:
		return IsObject
	case []any:
		shape := IsArray
		for _, element := range v {
			shape |= hasScalar(element)
		}
		return shape
	}
	has := hasScalar(value)
	return has | has>>6
}

// hasScalar is nothing for what is no scalar.
func hasScalar(value any) Shape {
	switch value.(type) {
	case nil:
		return HasNull
	case bool:
		return HasBool
	case string:
		return HasString
	case []any, map[string]any:
		return 0
	}
	return HasNumber
}

// articles say what an identity has in a field.
var articles = [...]string{"null", "a bool", "a number", "a string", "an array", "an object"}

// inWords says which types a field is of: "a number or an object", "an array of numbers".
func (s Shape) inWords() string {
	if s&AnyShape == IsArray {
		var elements []string
		for i, word := range [...]string{"nulls", "bools", "numbers", "strings"} {
			if s&(HasNull<<i) != 0 {
				elements = append(elements, word)
			}
		}
		if len(elements) > 0 {
			return "an array of " + alternatives(elements)
		}
	}
	var words []string
	for i, word := range articles {
		if s&(IsNull<<i) != 0 {
			words = append(words, word)
		}
	}
	return alternatives(words)
}

// scalars says which scalars are looked for.
func (s Shape) scalars() string { return ((s &^ AnyShape) >> 6).inWords() }

// alternatives is "a, b or c".
func alternatives(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
