package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
)

// maxNesting bounds the JSON of a body. Metadata and filters have narrower limits of their own; this one keeps a body from
// failing further down, where nobody could say why.
const maxNesting = 100

// maxDigits is more than the largest double has before its point, 309, and a sign.
const maxDigits = 310

// checkJSON refuses what would be changed or misunderstood on its way through protobuf: nesting beyond the bound, and
// integers that a double would round. What is no JSON at all is left to the parser that reads it.
func checkJSON(raw []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	depth := 0
	for {
		token, err := decoder.Token()
		if err != nil {
			return nil //nolint:nilerr // its end, or no JSON: protojson says what is wrong with it
		}
		switch t := token.(type) {
		case json.Delim:
			if t == '}' || t == ']' {
				depth--
				continue
			}
			if depth++; depth > maxNesting {
				return fmt.Errorf("is nested deeper than %d levels", maxNesting)
			}
		case json.Number:
			if rounded(t.String()) {
				return fmt.Errorf("the integer %s would be rounded: numbers travel as IEEE 754 doubles, send it as a string",
					shorten(t.String()))
			}
		}
	}
}

// minValues is how many values a body may have in any case. Each takes hundreds of times the time and the memory to read that its
// two bytes take on the wire; metadata and filters have fewer unless a namespace allows more.
const minValues = 50_000

// checkValues refuses a text that, if it is JSON, has more than so many values. It counts what stands between them.
func checkValues(raw []byte, most int) error {
	if len(raw) <= most {
		return nil
	}
	n, text := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '"':
			text = !text
		case text && c == '\\':
			i++
		case !text && (c == ',' || c == ':' || c == '[' || c == '{'):
			n++
		}
	}
	if n > most {
		return fmt.Errorf("has more than %d fields and values", most)
	}
	return nil
}

// rounded tells whether an integer, written without fraction and exponent, has no exact double.
func rounded(number string) bool {
	if len(number) < len("9007199254740993") || strings.ContainsAny(number, ".eE") {
		return false
	}
	if len(number) > maxDigits { // beyond every double; and reading it would take long
		return true
	}
	exact, ok := new(big.Int).SetString(number, 10)
	if !ok {
		return false
	}
	_, accuracy := new(big.Float).SetInt(exact).Float64()
	return accuracy != big.Exact
}
