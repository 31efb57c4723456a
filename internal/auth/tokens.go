package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// TokenPrefix begins every token that NewToken makes, so that scanners for leaked secrets can know it.
const TokenPrefix = "prism_"

// hashPrefix names the hash function in a configuration.
const hashPrefix = "sha256:"

// NewToken makes a token of 256 random bits, and the hash to put into a configuration.
func NewToken() (token, hash string) {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // documented never to fail
	token = TokenPrefix + base64.RawURLEncoding.EncodeToString(raw[:])
	return token, HashToken(token)
}

// HashToken returns the hash of a token as a configuration has it. One round of SHA-256 is enough because a token is random
// bits and no password.
func HashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hashPrefix + hex.EncodeToString(sum[:])
}

// Token is a static token, of which the configuration knows the hash only.
type Token struct {
	// Name is the subject of who has the token.
	Name string
	// Hash is "sha256:" and 64 hexadecimal digits, as NewToken returns it.
	Hash string
	// Claims is what else is known of them, such as {"roles": ["ops"]}.
	Claims map[string]any
}

// tokens finds static tokens by hash. How long a look-up takes tells about hashes at most, from which no token follows.
type tokens struct {
	byHash map[[sha256.Size]byte]staticToken
}

type staticToken struct {
	hash   [sha256.Size]byte
	caller Caller
}

func newTokens(list []Token) (*tokens, error) {
	t := &tokens{byHash: make(map[[sha256.Size]byte]staticToken, len(list))}
	names := make(map[string]bool, len(list))
	for i, token := range list {
		at := func(field string) string { return fmt.Sprintf("tokens[%d].%s", i, field) }
		if bad := badSubject(token.Name); bad != "" {
			return nil, invalid(at("name"), "%s", bad)
		}
		if names[token.Name] {
			return nil, invalid(at("name"), "%q is given twice", token.Name)
		}
		names[token.Name] = true
		hash, ok := parseHash(token.Hash)
		if !ok { // not quoted: it may be the token itself
			return nil, invalid(at("hash"), `expected "sha256:" and 64 hexadecimal digits, as "prism token" prints it`)
		}
		if other, twice := t.byHash[hash]; twice {
			return nil, invalid(at("hash"), "is that of %q too", other.caller.Subject)
		}
		t.byHash[hash] = staticToken{hash, Caller{Subject: token.Name, Method: MethodToken, Claims: token.Claims}}
	}
	return t, nil
}

func parseHash(s string) (hash [sha256.Size]byte, ok bool) {
	digits, ok := strings.CutPrefix(s, hashPrefix)
	if !ok || len(digits) != hex.EncodedLen(len(hash)) {
		return hash, false
	}
	_, err := hex.Decode(hash[:], []byte(digits))
	return hash, err == nil
}

func (t *tokens) find(hash [sha256.Size]byte) (Caller, bool) {
	found := t.byHash[hash]
	if subtle.ConstantTimeCompare(found.hash[:], hash[:]) != 1 {
		return Caller{}, false
	}
	return found.caller, true
}
