package client

import (
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// Metadata stays as it came, a google.protobuf.Struct, until somebody asks for it. It is checked once, when it arrives, which
// allocates nothing; so that reading it later cannot fail.

// The fields of google.protobuf.Struct, Value and ListValue.
const (
	tagFields = 1<<3 | bytesType // an entry of the map
	tagKey    = 1<<3 | bytesType
	tagValue  = 2<<3 | bytesType

	tagNull    = 1<<3 | varintType
	tagNumber  = 2<<3 | doubleType
	tagString  = 3<<3 | bytesType
	tagBool    = 4<<3 | varintType
	tagStruct  = 5<<3 | bytesType
	tagList    = 6<<3 | bytesType
	tagElement = 1<<3 | bytesType

	// Beside the number of an integer our servers send the integer itself, which a double may not hold: see
	// multicastregistry.AppendMetadata.
	tagInt  = 15<<3 | varintType
	tagUint = 16<<3 | varintType
)

// maxNesting bounds objects and lists within each other. No server takes as many.
const maxNesting = 100

// checkObject tells what is wrong with a Struct.
func checkObject(encoded string, depth int) error {
	if depth > maxNesting {
		return errTooDeep
	}
	fields := wireReader{message: encoded, at: plainFields(encoded)}
	for fields.next() {
		if fields.tag != tagFields {
			continue
		}
		entry := wireReader{message: fields.content()}
		for entry.next() {
			var err error
			switch entry.tag {
			case tagKey:
				_, err = entry.text()
			case tagValue:
				err = checkValue(entry.content(), depth)
			}
			if err != nil {
				return err
			}
		}
		if entry.bad {
			return errMalformed
		}
	}
	return fields.err()
}

// plainFields returns how long the first part of a Struct is in which all is well-formed and as nearly all servers write it:
// fields shorter than 128 bytes, of a key and then a value that is no object and no list.
func plainFields(encoded string) (end int) {
	for at := 0; at+2 <= len(encoded) && encoded[at] == tagFields && encoded[at+1] < 0x80; {
		at += 2 + int(encoded[at+1])
		if at > len(encoded) || !plainField(encoded[end+2:at]) {
			break
		}
		end = at
	}
	return end
}

func plainField(entry string) bool {
	if len(entry) < 2 || entry[0] != tagKey || entry[1] >= 0x80 {
		return false
	}
	value := 2 + int(entry[1])
	return value+2 <= len(entry) && utf8.ValidString(entry[2:value]) &&
		entry[value] == tagValue && int(entry[value+1]) == len(entry)-value-2 && plainValue(entry[value+2:])
}

func plainValue(value string) bool {
	if len(value) < 2 {
		return false
	}
	switch value[0] {
	case tagString:
		return int(value[1]) == len(value)-2 && utf8.ValidString(value[2:])
	case tagNumber:
		return len(value) == 9 || len(value) == 11 && value[9] == tagInt && value[10] < 0x80 ||
			len(value) == 12 && value[9] == tagInt && value[10] >= 0x80 && value[11] < 0x80
	case tagNull, tagBool:
		return len(value) == 2 && value[1] < 0x80
	}
	return false
}

func checkValue(encoded string, depth int) error {
	value := wireReader{message: encoded}
	for value.next() {
		var err error
		switch value.tag {
		case tagString:
			_, err = value.text()
		case tagStruct:
			err = checkObject(value.content(), depth+1)
		case tagList:
			err = checkList(value.content(), depth+1)
		}
		if err != nil {
			return err
		}
	}
	return value.err()
}

func checkList(encoded string, depth int) error {
	if depth > maxNesting {
		return errTooDeep
	}
	list := wireReader{message: encoded}
	for list.next() {
		if list.tag != tagElement {
			continue
		}
		if err := checkValue(list.content(), depth); err != nil {
			return err
		}
	}
	return list.err()
}

// decodeObject adds the fields of a Struct to an object.
func decodeObject(object map[string]any, encoded string) {
	fields := wireReader{message: encoded}
	for fields.next() {
		if fields.tag == tagFields {
			key, value := cutEntry(fields.content())
			object[key] = decodeValue(value)
		}
	}
}

// cutEntry splits an entry of a Struct. Parts of a message that come one by one are one message when put together.
func cutEntry(encoded string) (key, value string) {
	entry := wireReader{message: encoded}
	for entry.next() {
		switch entry.tag {
		case tagKey:
			key = entry.content()
		case tagValue:
			value = join(value, entry.content())
		}
	}
	return key, value
}

// join puts the parts of a message together, of which there is nearly always one.
func join(parts, part string) string {
	if parts == "" {
		return part
	}
	return parts + part
}

// decodeValue gives one Go type for each value: see the package's documentation. Of several values the last one counts.
func decodeValue(encoded string) any {
	var value, exact any
	r := wireReader{message: encoded}
	for r.next() {
		switch r.tag {
		case tagNull:
			value = nil
		case tagNumber:
			value, _ = filter.Scalar(math.Float64frombits(r.number))
		case tagString:
			value = r.content()
		case tagBool:
			value = r.number != 0
		case tagStruct:
			object, more := value.(map[string]any)
			if !more {
				object = make(map[string]any, 8)
			}
			decodeObject(object, r.content())
			value = object
		case tagList:
			list, more := value.([]any)
			if !more {
				list = make([]any, 0, 4)
			}
			value = decodeList(list, r.content())
		case tagInt:
			exact = protowire.DecodeZigZag(r.number)
		case tagUint:
			exact, _ = filter.Scalar(r.number)
		}
	}
	if exact != nil && double(value) == double(exact) {
		return exact
	}
	return value
}

// double is the number that travels for an integer.
func double(value any) float64 {
	switch v := value.(type) {
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	case float64:
		return v
	}
	return math.NaN()
}

// decodeList appends the elements of a ListValue to a list.
func decodeList(list []any, encoded string) []any {
	r := wireReader{message: encoded}
	for r.next() {
		if r.tag == tagElement {
			list = append(list, decodeValue(r.content()))
		}
	}
	return list
}

// lookUp finds a value in a Struct and decodes nothing else.
func lookUp(encoded string, path []string) (any, bool) {
	for i, key := range path {
		found, there := field(encoded, key)
		if !there {
			return nil, false
		}
		if i == len(path)-1 {
			return decodeValue(found), true
		}
		encoded = object(found)
	}
	return nil, false
}

// field finds the Value of one field of a Struct.
func field(encoded, key string) (value string, present bool) {
	fields := wireReader{message: encoded}
	for fields.next() {
		if fields.tag != tagFields {
			continue
		}
		if k, v := cutEntry(fields.content()); k == key {
			value, present = v, true
		}
	}
	return value, present
}

// object returns the Struct that is in a Value: empty, that is, without fields, when another value is.
func object(encoded string) string {
	inner := ""
	r := wireReader{message: encoded}
	for r.next() {
		switch r.tag {
		case tagStruct:
			inner = join(inner, r.content())
		case tagNull, tagNumber, tagString, tagBool, tagList:
			inner = ""
		}
	}
	return inner
}
