package auth

import (
	"context"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"
)

// Method is how a caller proved who they are.
type Method string

// The methods. MethodNone is that of the zero Caller, who has proved nothing.
const (
	MethodNone  Method = ""
	MethodToken Method = "token"
	MethodJWT   Method = "jwt"
	MethodMTLS  Method = "mtls"
)

// String is the method's name, "none" for MethodNone.
func (m Method) String() string {
	if m == MethodNone {
		return "none"
	}
	return string(m)
}

// Caller is who makes a call. It may be shared by calls: nobody changes the claims.
type Caller struct {
	// Subject is the caller's name: the name of a static token, the subject claim of a JWT, or what a certificate says. It is
	// unique only together with Method.
	Subject string
	// Method is how the caller proved it.
	Method Method
	// Claims is what else is known: nil, bool, string, numbers, []any and map[string]any, as JSON has it.
	Claims map[string]any
	// Expires is from when on the credentials are not accepted any more. Zero: never.
	Expires time.Time
}

// Claim finds a claim: under the whole name, else along its dots through objects.
func (c Caller) Claim(name string) (value any, present bool) {
	if value, present = c.Claims[name]; present || !strings.Contains(name, ".") {
		return value, present
	}
	value = c.Claims
	for part := range strings.SplitSeq(name, ".") {
		object, ok := value.(map[string]any)
		if !ok {
			return nil, false
		}
		if value, present = object[part]; !present {
			return nil, false
		}
	}
	return value, true
}

// LogValue is the subject and the method: claims are nobody's business.
func (c Caller) LogValue() slog.Value {
	return slog.GroupValue(slog.String("subject", c.Subject), slog.String("method", c.Method.String()))
}

type callerKey struct{}

// NewContext returns a context that carries the caller.
func NewContext(ctx context.Context, caller Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// FromContext returns the caller that a context carries.
func FromContext(ctx context.Context) (caller Caller, ok bool) {
	caller, ok = ctx.Value(callerKey{}).(Caller)
	return caller, ok
}

// maxSubjectBytes is the longest subject: a SPIFFE ID may have as much.
const maxSubjectBytes = 2048

// badSubject says what keeps a string from being a subject, or "".
func badSubject(subject string) string {
	switch {
	case subject == "":
		return "is empty"
	case len(subject) > maxSubjectBytes:
		return "is too long"
	case !utf8.ValidString(subject):
		return "is not valid UTF-8"
	case strings.ContainsFunc(subject, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "has control characters"
	}
	return ""
}
