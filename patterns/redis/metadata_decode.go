package redis

import (
	"strconv"
	"strings"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// decodeMetadata is the inverse of encodeMetadata. It reads any JSON object, so that one written by hand is understood. The
// strings it returns are parts of the text.
func decodeMetadata(text string) (map[string]any, error) {
	return multicastregistry.DecodeJSON(text, unescape)
}

// metadataDecoder sets the metadata of an identity from its stored form.
type metadataDecoder func(identity *multicastregistry.Identity, text string) error

// asMap sets Metadata.
func asMap(identity *multicastregistry.Identity, text string) (err error) {
	identity.Metadata, err = decodeMetadata(text)
	return err
}

// asEncoded returns a decoder that sets Encoded. It is for one goroutine.
func asEncoded() metadataDecoder {
	buffer := make([]byte, 0, 1024)
	return func(identity *multicastregistry.Identity, text string) (err error) {
		buffer, err = multicastregistry.AppendJSON(buffer[:0], text, unescape)
		identity.Encoded = string(buffer)
		return err
	}
}

// unescape returns the value behind a string that begins with NUL.
func unescape(s string) (value any, ok bool) {
	if digits, integer := strings.CutPrefix(s, escapeInteger); integer {
		if i, err := strconv.ParseInt(digits, 10, 64); err == nil {
			return i, true
		}
		u, err := strconv.ParseUint(digits, 10, 64)
		return u, err == nil
	}
	if s == emptyArray {
		return []any{}, true
	}
	return s[len(escape):], strings.HasPrefix(s[len(escape):], escape)
}
