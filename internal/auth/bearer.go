package auth

import "strings"

// maxBearerBytes is the longest token. Tokens of real issuers have one to four thousand bytes.
const maxBearerBytes = 16 << 10

// ParseBearer takes the token out of the values of the Authorization header, or of the metadata of that name. Without a value
// there is no token. Several values, another scheme than Bearer, and what cannot be a token (RFC 6750) are refused.
func ParseBearer(values ...string) (token string, err error) {
	switch len(values) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", unauthenticated(Invalid, "%d authorization headers", len(values))
	}
	value := values[0]
	if len(value) > len("Bearer ")+maxBearerBytes {
		return "", unauthenticated(Invalid, "an authorization header of %d bytes", len(value))
	}
	scheme, token, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", unauthenticated(Invalid, "an authorization header of another scheme than Bearer")
	}
	token = strings.Trim(token, " ")
	if !bearerToken(token) {
		return "", unauthenticated(Invalid, "a bearer token with characters that no token has")
	}
	return token, nil
}

// bearerToken tells whether s is a b64token of RFC 6750: at least one character, and = only at the end.
func bearerToken(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~+/", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
