package main

import (
	"bytes"
	"encoding/json"
	"io"
	"regexp"
	"strings"
)

// yamlOf goes through JSON, so that both formats have the same fields in the same order. A string that YAML could take for
// anything else is written as in JSON, which YAML reads the same way.
func yamlOf(value any) ([]byte, error) {
	var text, out bytes.Buffer
	if err := writeJSON(&text, value, ""); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(&text)
	decoder.UseNumber()
	w := yamlWriter{from: decoder, to: &out}
	if err := w.value("", false); err != nil && err != io.EOF { //nolint:errorlint // the decoder returns it bare
		return nil, err
	}
	return bytes.TrimLeft(out.Bytes(), "\n "), nil
}

// yamlWriter turns JSON into YAML, token by token.
type yamlWriter struct {
	from *json.Decoder
	to   *bytes.Buffer
}

// value writes the next value behind a key or a dash: a scalar on the same line, fields and elements on lines of their own
// with an indentation; the first of them stays on the line of a dash.
func (w *yamlWriter) value(indent string, dash bool) error {
	token, err := w.from.Token()
	if err != nil {
		return err
	}
	delim, nested := token.(json.Delim)
	switch {
	case !nested:
		w.to.WriteByte(' ')
		w.scalar(token)
		w.to.WriteByte('\n')
		return nil
	case !w.from.More():
		w.to.WriteString(map[json.Delim]string{'{': " {}\n", '[': " []\n"}[delim])
	case dash:
		w.to.WriteByte(' ')
	default:
		w.to.WriteString("\n" + indent)
	}
	for n := 0; w.from.More(); n++ {
		if n > 0 {
			w.to.WriteString(indent)
		}
		if err := w.entry(delim == '{', indent); err != nil {
			return err
		}
	}
	_, err = w.from.Token()
	return err
}

// entry writes one field of an object or one element of a list.
func (w *yamlWriter) entry(isField bool, indent string) error {
	if !isField {
		w.to.WriteByte('-')
		return w.value(indent+"  ", true)
	}
	key, err := w.from.Token()
	if err != nil {
		return err
	}
	w.scalar(key)
	w.to.WriteByte(':')
	return w.value(indent+"  ", false)
}

var (
	plainYAML = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./+@-]*( [A-Za-z0-9_./+@-]+)*$`)
	// reserved are the words that some reader of YAML takes for truth values or nothing.
	reserved = regexp.MustCompile(`^(?i:y|n|yes|no|true|false|on|off|null)$`)
)

func (w *yamlWriter) scalar(token json.Token) {
	switch v := token.(type) {
	case string:
		if plainYAML.MatchString(v) && !reserved.MatchString(v) {
			w.to.WriteString(v)
			return
		}
		var quoted strings.Builder
		_ = writeJSON(&quoted, v, "") // a string can be written
		w.to.WriteString(strings.TrimSuffix(quoted.String(), "\n"))
	case json.Number:
		w.to.WriteString(v.String())
	case bool:
		w.to.WriteString(map[bool]string{true: "true", false: "false"}[v])
	default:
		w.to.WriteString("null")
	}
}
