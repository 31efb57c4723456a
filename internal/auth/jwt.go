package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

// Defaults and bounds of JWT.
const (
	DefaultLeeway          = 30 * time.Second
	MaxLeeway              = 5 * time.Minute
	DefaultSubjectClaim    = "sub"
	DefaultRefreshInterval = 5 * time.Minute
	MinRefreshInterval     = 10 * time.Second
	DefaultStartTimeout    = 5 * time.Second
)

// Algorithms are the signatures that can be accepted, and are by default: those with a public key. A secret that is shared with
// the issuer (HS256 and its like) could sign tokens too, and "none" is none.
func Algorithms() []string {
	return []string{
		"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
	}
}

// JWT says which JSON web tokens are accepted: those of one issuer, for one of the audiences, with an expiry. Not-before and
// issued-at are honoured where a token has them.
type JWT struct {
	// Issuer is the iss claim, to the letter. Without JWKSURL and JWKSFile it is the URL where OIDC discovery starts.
	Issuer string
	// Audiences are those of which a token's aud claim must have one. Required: otherwise any token of the issuer, meant for any
	// service, would do.
	Audiences []string
	// Algorithms are the signatures that are accepted. Default: Algorithms().
	Algorithms []string
	// Leeway is how far the clocks of issuer and server may be apart. Default (0): 30 s. At most 5 min.
	Leeway time.Duration
	// SubjectClaim is the claim, a string, that is the subject. Default: sub.
	SubjectClaim string
	// JWKSURL is where the issuer's keys are, if not where OIDC discovery says.
	JWKSURL string
	// JWKSFile is a file with the issuer's keys, in place of a URL.
	JWKSFile string
	// CAFile is a file with the authorities, in PEM, that vouch for the issuer's server. Default: those of the system.
	CAFile string
	// RefreshInterval is how often the keys are read again. Default (0): 5 min, at least 10 s. A file is looked at every 5 s.
	RefreshInterval time.Duration
	// StartTimeout is how long Open waits for the first keys. Default (0): 5 s.
	StartTimeout time.Duration

	// pace is set by tests only.
	pace pace
}

func (j JWT) withDefaults() JWT {
	if len(j.Algorithms) == 0 {
		j.Algorithms = Algorithms()
	}
	setDefault(&j.Leeway, DefaultLeeway)
	setDefault(&j.SubjectClaim, DefaultSubjectClaim)
	setDefault(&j.RefreshInterval, DefaultRefreshInterval)
	setDefault(&j.StartTimeout, DefaultStartTimeout)
	if j.pace == (pace{}) {
		j.pace = pace{every: j.RefreshInterval, least: 10 * time.Second, retry: time.Second, fetch: 5 * time.Second}
		if j.JWKSFile != "" {
			j.pace.every, j.pace.least = filePoll, time.Second
		}
	}
	return j
}

func setDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// Validate returns an InvalidError that names the field at fault.
func (j JWT) Validate() error {
	if j.Issuer == "" {
		return invalid("issuer", "is required: the iss claim of the tokens")
	}
	if len(j.Audiences) == 0 || slices.Contains(j.Audiences, "") {
		return invalid("audiences", "at least one is required, and none may be empty: the aud claim says whom a token is for")
	}
	for _, alg := range j.Algorithms {
		if !slices.Contains(Algorithms(), alg) {
			return invalid("algorithms", "expected some of %s, got %q", strings.Join(Algorithms(), ", "), alg)
		}
	}
	if j.Leeway < 0 || j.Leeway > MaxLeeway {
		return invalid("leeway", "must be between 0 and %s, got %s", MaxLeeway, j.Leeway)
	}
	if j.RefreshInterval != 0 && j.RefreshInterval < MinRefreshInterval {
		return invalid("refresh_interval", "must be at least %s, got %s", MinRefreshInterval, j.RefreshInterval)
	}
	if j.StartTimeout < 0 {
		return invalid("start_timeout", "must not be negative, got %s", j.StartTimeout)
	}
	switch {
	case j.JWKSURL != "" && j.JWKSFile != "":
		return invalid("jwks_file", "cannot be given together with jwks_url")
	case j.JWKSFile != "" && j.CAFile != "":
		return invalid("ca_file", "is for a URL, and the keys are in a file")
	case j.JWKSFile != "":
		return nil
	case j.JWKSURL != "":
		return checkURL("jwks_url", j.JWKSURL)
	case strings.Contains(j.Issuer, "?"):
		return invalid("issuer", "expected a URL without a query, got %q", j.Issuer)
	}
	return checkURL("issuer", j.Issuer)
}

// verifier verifies the tokens of one issuer.
type verifier struct {
	subject string
	leeway  time.Duration
	parser  *jwt.Parser
	keys    *keySet
	keyFunc keyfunc.Keyfunc
	cache   *cache
	cancel  context.CancelFunc
	running sync.WaitGroup
	users   atomic.Int32
}

func openVerifier(ctx context.Context, cfg JWT, log *slog.Logger) (*verifier, error) {
	load, err := cfg.loader()
	if err != nil {
		return nil, err
	}
	v := &verifier{subject: cfg.SubjectClaim, leeway: cfg.Leeway, cache: newCache(), keys: newKeySet(load, cfg.pace, log)}
	v.keyFunc, err = keyfunc.New(keyfunc.Options{Storage: v.keys, UseWhitelist: []jwkset.USE{jwkset.UseSig, ""}})
	if err != nil {
		return nil, err
	}
	v.parser = jwt.NewParser(jwt.WithValidMethods(cfg.Algorithms), jwt.WithIssuer(cfg.Issuer), jwt.WithAudience(cfg.Audiences...),
		jwt.WithLeeway(cfg.Leeway), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithJSONNumber())
	v.users.Store(1)
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	v.cancel = cancel
	v.running.Go(func() { v.keys.run(background) })
	v.keys.wait(ctx, cfg.StartTimeout)
	return v, nil
}

// close lets go of the verifier, which ends with the last who does.
func (v *verifier) close() {
	if v.users.Add(-1) > 0 {
		return
	}
	v.cancel()
	v.running.Wait()
}

// verify returns whose token it is. hash is that of the token.
func (v *verifier) verify(ctx context.Context, token string, hash [sha256.Size]byte, now time.Time) (Caller, error) {
	generation := v.keys.generation.Load()
	if caller, ok := v.cache.get(hash, generation, now); ok {
		return caller, nil
	}
	claims := jwt.MapClaims{}
	parsed, err := v.parser.ParseWithClaims(token, claims, v.keyFunc.KeyfuncCtx(ctx))
	switch {
	case errors.Is(err, jwt.ErrTokenExpired): // claims are looked at when the signature is good only
		return Caller{}, unauthenticated(Expired, "%v", err)
	case err != nil && !v.keys.loaded():
		return Caller{}, unauthenticated(Invalid, "there are no keys of the issuer: %v; %v", v.keys.check(), err)
	case err != nil:
		return Caller{}, unauthenticated(Invalid, "%v", err)
	}
	if _, critical := parsed.Header["crit"]; critical {
		return Caller{}, unauthenticated(Invalid, "the token has critical extensions, and none is understood")
	}
	caller := Caller{Method: MethodJWT, Claims: claims}
	subject, _ := caller.Claim(v.subject)
	caller.Subject, _ = subject.(string)
	if bad := badSubject(caller.Subject); bad != "" {
		return Caller{}, unauthenticated(Invalid, "the claim %s %s, or is no string", v.subject, bad)
	}
	expires, err := claims.GetExpirationTime()
	if err != nil || expires == nil {
		return Caller{}, unauthenticated(Invalid, "the token does not expire: %v", err)
	}
	caller.Expires = expires.Add(v.leeway)
	if len(token) <= cacheBytes {
		v.cache.put(hash, generation, caller, now)
	}
	return caller, nil
}
