package watch

import (
	"encoding/base64"
	"hash/fnv"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// place is where a watcher is: what a token says.
type place struct {
	epoch string
	at    uint64
}

const (
	tokenEpoch  = "e"
	tokenAt     = "r"
	tokenFilter = "f"
)

// token writes a place for watchers of a filter.
func (p place) token(filterName string) string {
	return base64.RawURLEncoding.EncodeToString(multicastregistry.AppendMetadata(nil, map[string]any{
		tokenEpoch: p.epoch, tokenAt: int64(p.at), tokenFilter: short(filterName),
	}))
}

// parseToken is the inverse of token.
func parseToken(text, filterName string) (p place, err error) {
	raw, errText := base64.RawURLEncoding.DecodeString(text)
	content, errContent := multicastregistry.DecodeMetadata(string(raw))
	epoch, ok1 := content[tokenEpoch].(string)
	at, ok2 := content[tokenAt].(int64)
	of, ok3 := content[tokenFilter].(int64)
	if errText != nil || errContent != nil || !ok1 || !ok2 || !ok3 || at < 0 {
		return p, &multicastregistry.InvalidError{Field: "resume_token", Problem: "is not a token that a watch has returned"}
	}
	if of != short(filterName) {
		return p, &multicastregistry.InvalidError{Field: "resume_token", Problem: "is of a watch with another filter"}
	}
	return place{epoch: epoch, at: uint64(at)}, nil
}

// short tells filters apart.
func short(filterName string) int64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(filterName))
	return int64(h.Sum32())
}
