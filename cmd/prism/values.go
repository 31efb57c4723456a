package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

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
		if err := decodeStrict([]byte(object), &metadata); err != nil {
			return nil, fmt.Errorf("--json: expected a JSON object: %w", err)
		}
		if metadata == nil {
			return nil, errors.New("--json: expected a JSON object, got null")
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

// decodeStrict reads one JSON value and nothing behind it; unknown keys of structs are refused, numbers stay exact.
func decodeStrict(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("it is empty")
		}
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind the first value")
	}
	return nil
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
