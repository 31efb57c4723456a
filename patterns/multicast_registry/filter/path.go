package filter

import (
	"errors"
	"strings"
)

var errBareDollar = errors.New("a part of a field's name starts with $; write \\$ for a literal one, " +
	`or name an operator without the $ as in "battery.lt"`)

// splitKey takes a key such as `sensor.temp.lt` apart into path and operator. The last part is an operator when it is
// spelled as one, without an escape, and is not the only part; Eq otherwise.
func splitKey(key string) (path []string, op Op, suffixed bool, err error) {
	op = Eq
	if !strings.ContainsAny(key, `.\$`) && key != "" {
		return []string{key}, op, false, nil
	}
	var part strings.Builder
	partStart := 0
	for i := 0; i <= len(key); i++ {
		switch {
		case i == len(key) || key[i] == '.':
			if part.Len() == 0 {
				return nil, 0, false, errors.New("an empty part in the name of the field")
			}
			path = append(path, part.String())
			if i == len(key) {
				break
			}
			part.Reset()
			partStart = i + 1
		case key[i] == '\\':
			if i++; i == len(key) {
				return nil, 0, false, errors.New(`expected a character after the last \`)
			}
			part.WriteByte(key[i])
		case key[i] == '$' && i == partStart:
			return nil, 0, false, errBareDollar
		default:
			part.WriteByte(key[i])
		}
	}
	if len(path) > 1 {
		if found, ok := fieldOp(key[partStart:]); ok {
			return path[:len(path)-1], found, true, nil
		}
	}
	return path, op, false, nil
}

// joinKey is the inverse of splitKey for a path without an operator.
func joinKey(path []string) string {
	var key strings.Builder
	for i, part := range path {
		if i > 0 {
			key.WriteByte('.')
		}
		_, isOp := fieldOp(part)
		if strings.HasPrefix(part, "$") || isOp && i > 0 && i == len(path)-1 {
			key.WriteByte('\\')
		}
		keyEscapes.WriteString(&key, part) //nolint:errcheck // a Builder never fails
	}
	return key.String()
}

var keyEscapes = strings.NewReplacer(`.`, `\.`, `\`, `\\`)

// ParsePath reads the name of a field as it stands in a filter, without an operator: dots descend into objects, `\.` is a
// literal dot.
func ParsePath(name string) ([]string, error) {
	path, op, suffixed, err := splitKey(name)
	if err == nil && suffixed {
		path = append(path, op.String())
	}
	return path, err
}

// FormatPath is the inverse of ParsePath.
func FormatPath(path []string) string { return joinKey(path) }
