// Package filter is the language in which callers say which identities they mean, by their metadata.
//
// A filter is a JSON object. Its keys name fields of the metadata and all of them must hold:
//
//	{"room": "engineering", "battery": {"$lt": 0.2}}
//
// A field's condition is a scalar, which the field must equal, or an object of operators, all of which must hold. The
// operators are listed by [Operators]. Filters are combined with $and and $or, which take arrays of filters, and $not,
// which takes a filter or, inside a field, an object of operators. The empty filter {} matches everything.
//
// # Names of fields
//
// Dots descend into objects: "sensor.temp" is the field temp of the object sensor. The last part of a dotted name is an
// operator if, and only if, it is spelled like one of the field operators: {"battery.lt": 0.2} is {"battery": {"$lt":
// 0.2}}. A backslash takes the character after it literally, so `\.` is a dot within a key, `\\` a backslash, `\$` a
// dollar sign at the start of a part (where a bare one is refused), and `limits.\lt` is the field lt of the object limits.
//
// # When an operator holds
//
// Evaluation is total: a filter and metadata give a bool, never an error. A positive operator is false on a field that is
// missing, null or of another type. $ne, $nin and $not are the exact complements of $eq, $in and what they negate, so
// they are true there. Two operators ask for presence: {"$exists": true} holds for every present field, {"$exists":
// false} for a missing one. $eq null holds for a null that is present only.
//
// Nothing is converted. Numbers are one type, whatever Go type or spelling they come in, and are compared by value:
// integers of 64 bits exactly, everything else as float64. Strings are compared by bytes. A json.Number is a number.
// Paths go through objects only, never through arrays.
//
// An operator holds for an array when it holds for one of the elements, and $ne when no element is equal. Elements that
// are arrays themselves are not looked into. $contains looks for an element equal to its operand, and for a substring
// only when the field itself is a string; $exists and $type look at the field itself.
//
// # Parsing and evaluating
//
// [Parse] reads text, [ParseValue] decoded JSON; both check every operand, compile regular expressions and version
// ranges, and enforce [Limits]. What they give is an [Expr], an immutable tree that [Match] evaluates without allocating,
// that translators walk to push a filter down into an index or a database, and that prints as canonical JSON. Every
// error is a [*SyntaxError] with a JSON pointer to the place.
package filter
