package auth

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"reflect"
	"time"
)

// Config says which credentials are accepted. Without any, everybody is.
type Config struct {
	// Tokens are the static tokens.
	Tokens []Token
	// JWT accepts JSON web tokens.
	JWT *JWT
	// MTLS accepts client certificates, which the TLS configuration must ask for.
	MTLS *MTLS
}

// None tells whether the configuration accepts no credentials, and so every caller.
func (c Config) None() bool { return len(c.Tokens) == 0 && c.JWT == nil && c.MTLS == nil }

// Validate returns an InvalidError that names the field at fault. It reads no file and opens no connection.
func (c Config) Validate() error {
	if _, err := newTokens(c.Tokens); err != nil {
		return err
	}
	if c.JWT != nil {
		if err := c.JWT.Validate(); err != nil {
			return within("jwt", err)
		}
	}
	if c.MTLS != nil {
		if err := c.MTLS.Validate(); err != nil {
			return within("mtls", err)
		}
	}
	return nil
}

// Credentials are what a caller sent.
type Credentials struct {
	// Bearer is the token, as ParseBearer returns it. Empty: none.
	Bearer string
	// PeerCertificates is the verified chain of the client's certificate, its own first, as PeerCertificates returns it.
	PeerCertificates []*x509.Certificate
}

// PeerCertificates returns the chain of the client's certificate when it was verified against an authority, and nil otherwise.
func PeerCertificates(state *tls.ConnectionState) []*x509.Certificate {
	if state == nil || len(state.VerifiedChains) == 0 {
		return nil
	}
	return state.VerifiedChains[0]
}

// Authenticator finds out who is calling. It is safe for concurrent use.
type Authenticator struct {
	none   bool
	tokens *tokens
	jwt    *verifier
	jwtCfg *JWT
	mtls   *MTLS
}

// Open returns an authenticator. It waits for an issuer's keys until ctx ends or the configuration's StartTimeout has passed, and
// then works without them until they come. Close it.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Authenticator, error) {
	return (*Authenticator)(nil).With(ctx, cfg, log)
}

// With is Open for a changed configuration. Where the issuer is the same its keys are taken along, as they are. Both
// authenticators are to be closed.
func (a *Authenticator) With(ctx context.Context, cfg Config, log *slog.Logger) (*Authenticator, error) {
	before := a
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a = &Authenticator{none: cfg.None(), jwtCfg: cfg.JWT}
	a.tokens, _ = newTokens(cfg.Tokens) // validated above
	if cfg.MTLS != nil {
		m := cfg.MTLS.withDefaults()
		a.mtls = &m
	}
	switch {
	case cfg.JWT == nil:
	case before != nil && before.jwt != nil && reflect.DeepEqual(before.jwtCfg, cfg.JWT):
		a.jwt = before.jwt
		a.jwt.users.Add(1)
	default:
		var err error
		if a.jwt, err = openVerifier(ctx, cfg.JWT.withDefaults(), log); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Authenticate returns who sent the credentials. Every error wraps ErrUnauthenticated. It waits, a few seconds at most and not
// longer than ctx, only for a token with a key that is not known yet.
func (a *Authenticator) Authenticate(ctx context.Context, credentials Credentials) (Caller, error) {
	switch {
	case a.none:
		return Caller{}, nil
	case credentials.Bearer != "":
		return a.bearer(ctx, credentials.Bearer)
	case len(credentials.PeerCertificates) == 0:
		return Caller{}, unauthenticated(Missing, "no credentials")
	case a.mtls == nil:
		return Caller{}, unauthenticated(Missing, "a certificate, but certificates do not authenticate here")
	}
	return a.mtls.caller(credentials.PeerCertificates[0], time.Now())
}

func (a *Authenticator) bearer(ctx context.Context, token string) (Caller, error) {
	if len(token) > maxBearerBytes {
		return Caller{}, unauthenticated(Invalid, "a token of %d bytes", len(token))
	}
	hash := sha256.Sum256([]byte(token))
	if caller, ok := a.tokens.find(hash); ok {
		return caller, nil
	}
	if a.jwt == nil {
		return Caller{}, unauthenticated(Invalid, "not a known token")
	}
	return a.jwt.verify(ctx, token, hash, time.Now())
}

// Ready says why no token can be verified: the keys of their issuer have never been read. It is for a readiness probe.
func (a *Authenticator) Ready() error {
	if a.jwt == nil || a.jwt.keys.loaded() {
		return nil
	}
	if err := a.jwt.keys.check(); err != nil {
		return err
	}
	return errNoKeysYet
}

// errNoKeysYet is what there is to say while the first attempt is under way.
var errNoKeysYet = errors.New("the issuer's keys have not been read yet")

// Check says why the keys of the issuer could not be read the last time. Those that were read before are good still, so it is for
// whoever repairs it, and for no probe. It is nil when nothing is wrong, and when there is no issuer.
func (a *Authenticator) Check() error {
	if a.jwt == nil {
		return nil
	}
	return a.jwt.keys.check()
}

// Close ends what runs in the background and waits for it.
func (a *Authenticator) Close() {
	if a.jwt != nil {
		a.jwt.close()
	}
}
