package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/prism-data-layer/prism/client"
)

// metadataHelp explains what the flags --meta and --json take.
const metadataHelp = `Metadata is given as --meta KEY=TEXT or --meta KEY:=JSON, as often as needed, or at once as --json OBJECT;
--meta adds to --json and overrides it. Dots in a key descend into objects, as in filters: --meta pos.lat:=52.5 is
{"pos": {"lat": 52.5}}, and \. is a dot in a key.`

// metadataOf builds metadata from the flags --json and --meta.
func metadataOf(object string, pairs []string) (map[string]any, error) {
	metadata := map[string]any{}
	if object != "" {
		var value any
		if err := decodeStrict([]byte(object), &value); err != nil {
			return nil, fmt.Errorf("--json: expected a JSON object: %w", err)
		}
		var ok bool
		if metadata, ok = value.(map[string]any); !ok {
			return nil, fmt.Errorf("--json: expected a JSON object, got %s", kindOf(value))
		}
	}
	set := make(map[string]bool)
	for _, pair := range pairs {
		key, value, err := parsePair(pair)
		if err != nil {
			return nil, fmt.Errorf("--meta %s: %w", pair, err)
		}
		if set[key] {
			return nil, fmt.Errorf("--meta %s: %s is given twice", pair, key)
		}
		set[key] = true
		if err := put(metadata, splitKey(key), value); err != nil {
			return nil, fmt.Errorf("--meta %s: %w", pair, err)
		}
	}
	return metadata, nil
}

// parsePair reads KEY=TEXT and KEY:=JSON.
func parsePair(pair string) (key string, value any, err error) {
	if !utf8.ValidString(pair) {
		return "", nil, errors.New("it is not valid UTF-8")
	}
	key, text, found := strings.Cut(pair, "=")
	if !found || key == "" || key == ":" {
		return "", nil, errors.New("expected KEY=TEXT or KEY:=JSON")
	}
	key, isJSON := strings.CutSuffix(key, ":")
	if !isJSON {
		return key, text, nil
	}
	if err := decodeStrict([]byte(text), &value); err != nil {
		return "", nil, fmt.Errorf("expected JSON after := : %w", err)
	}
	return key, value, nil
}

// splitKey splits at dots; a backslash takes the next character as it is.
func splitKey(key string) []string {
	var parts []string
	var part strings.Builder
	escaped := false
	for _, r := range key {
		switch {
		case escaped:
			part.WriteRune(r)
			escaped = false
		case r == '\\':
			escaped = true
		case r == '.':
			parts = append(parts, part.String())
			part.Reset()
		default:
			part.WriteRune(r)
		}
	}
	return append(parts, part.String())
}

func put(object map[string]any, path []string, value any) error {
	for i, part := range path {
		if part == "" {
			return errors.New("a part of the key is empty")
		}
		if i == len(path)-1 {
			object[part] = value
			return nil
		}
		inner, ok := object[part].(map[string]any)
		if _, exists := object[part]; exists && !ok {
			return fmt.Errorf("%s is not an object", strings.Join(path[:i+1], "."))
		}
		if !ok {
			inner = map[string]any{}
			object[part] = inner
		}
		object = inner
	}
	return nil
}

// kindOf names what a JSON value is.
func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return jsonKind("bool")
	case string:
		return jsonKind("string")
	case []any:
		return jsonKind("array")
	case map[string]any:
		return jsonKind("object")
	default:
		return jsonKind("number")
	}
}

// jsonKind is what encoding/json calls a kind of value, in words.
func jsonKind(kind string) string {
	switch kind {
	case "string":
		return "text"
	case "bool":
		return "true or false"
	case "array", "object":
		return "an " + kind
	default:
		return "a " + kind
	}
}

// decodeStrict reads one JSON value and nothing behind it; unknown keys of structs are refused, numbers stay exact, and
// so does text: what encoding/json would replace by U+FFFD is refused. A *json.UnmarshalTypeError comes as it is.
func decodeStrict(text []byte, into any) error {
	if err := checkText(text); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("it is empty")
		}
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return wrong
		}
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind the first value")
	}
	return nil
}

// checkText finds bytes and escapes that are no characters.
func checkText(text []byte) error {
	for at := 0; at < len(text); {
		r, n := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && n == 1 {
			return fmt.Errorf("it is not valid UTF-8: byte %d is 0x%02x", at+1, text[at])
		}
		if r == '\\' {
			if n = escape(text[at:]); n == 0 {
				return fmt.Errorf("%s, at byte %d, is half of a character", text[at:at+unicodeEscape], at+1)
			}
		}
		at += n
	}
	return nil
}

// unicodeEscape is the length of an escape such as \u00e4.
const unicodeEscape = 6

// escape returns the length of the escape that a text begins with; 0 when it is half of a surrogate pair. What is none at
// all is left to the decoder.
func escape(text []byte) int {
	first, ok := escaped(text)
	switch {
	case !ok:
		return min(2, len(text))
	case !utf16.IsSurrogate(first):
		return unicodeEscape
	}
	if second, _ := escaped(text[unicodeEscape:]); utf16.DecodeRune(first, second) == utf8.RuneError {
		return 0
	}
	return 2 * unicodeEscape
}

func escaped(text []byte) (r rune, ok bool) {
	if len(text) < unicodeEscape || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text[2:unicodeEscape]), 16, 16)
	return rune(n), err == nil
}

// ttlOf reads "30s", "never", or "" for the namespace's default.
func ttlOf(text string) (time.Duration, error) {
	switch text {
	case "":
		return 0, nil
	case "never":
		return client.NoExpiry, nil
	}
	ttl, err := time.ParseDuration(text)
	if err != nil || ttl <= 0 {
		return 0, fmt.Errorf("ttl %q: expected a duration such as 30s or 5m, or never", text)
	}
	return ttl, nil
}
