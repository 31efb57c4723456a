package auth

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func allKeys() map[string]crypto.Signer {
	return map[string]crypto.Signer{"rsa": rsaKey(), "ec": ecKey(), "ed": edKey(), "weak": weakRSAKey()}
}

func TestJWT(t *testing.T) {
	iss := newIssuer(t, allKeys())
	a, _ := openJWT(t, iss.config())
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	rs256 := func(changes ...any) string {
		return sign(t, jwt.SigningMethodRS256, "rsa", rsaKey(), claims(iss.URL, changes...))
	}
	publicDER := must(x509.MarshalPKIXPublicKey(rsaKey().Public()))
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER})
	critical := jwt.NewWithClaims(jwt.SigningMethodRS256, claims(iss.URL))
	critical.Header["kid"], critical.Header["crit"] = "rsa", []string{"b64"}
	good := rs256()
	parts := strings.Split(good, ".")

	for _, tt := range []struct {
		name   string
		token  string
		fault  Fault // empty: accepted
		detail string
	}{
		{"RS256", good, "", ""},
		{"RS512", sign(t, jwt.SigningMethodRS512, "rsa", rsaKey(), claims(iss.URL)), "", ""},
		{"PS256", sign(t, jwt.SigningMethodPS256, "rsa", rsaKey(), claims(iss.URL)), "", ""},
		{"ES256", sign(t, jwt.SigningMethodES256, "ec", ecKey(), claims(iss.URL)), "", ""},
		{"EdDSA", sign(t, jwt.SigningMethodEdDSA, "ed", edKey(), claims(iss.URL)), "", ""},
		{"without a key id", sign(t, jwt.SigningMethodES256, "", ecKey(), claims(iss.URL)), "", ""},
		{"one of several audiences", rs256("aud", []string{"other", "prism"}), "", ""},

		{"none", sign(t, jwt.SigningMethodNone, "rsa", jwt.UnsafeAllowNoneSignatureType, claims(iss.URL)), Invalid, "signing method none is invalid"},
		{"HS256 with the public key", sign(t, jwt.SigningMethodHS256, "rsa", publicPEM, claims(iss.URL)), Invalid, "signing method HS256 is invalid"},
		{"HS256 with the modulus", sign(t, jwt.SigningMethodHS256, "rsa", rsaKey().N.Bytes(), claims(iss.URL)), Invalid, "signing method HS256 is invalid"},
		{"ES256 with the id of an RSA key", sign(t, jwt.SigningMethodES256, "rsa", ecKey(), claims(iss.URL)), Invalid, "key is of invalid type"},
		{"another's key", sign(t, jwt.SigningMethodES256, "ec", newEC(), claims(iss.URL)), Invalid, "verification error"},
		{"a weak key", sign(t, jwt.SigningMethodRS256, "weak", weakRSAKey(), claims(iss.URL)), Invalid, "key not found"},
		{"an unknown key", sign(t, jwt.SigningMethodES256, "x", ecKey(), claims(iss.URL)), Invalid, "key not found"},
		{"critical extensions", must(critical.SignedString(rsaKey())), Invalid, "critical extensions"},
		{"changed claims", parts[0] + "." + strings.Split(rs256("sub", "bob"), ".")[1] + "." + parts[2], Invalid, "verification error"},
		{"no signature", parts[0] + "." + parts[1] + ".", Invalid, "verification error"},

		{"expired", rs256("exp", in(-time.Minute)), Expired, "token is expired"},
		{"expired within the leeway", rs256("exp", in(-10*time.Second)), "", ""},
		{"expired, and another's key", sign(t, jwt.SigningMethodES256, "ec", newEC(), claims(iss.URL, "exp", in(-time.Hour))), Invalid, ""},
		{"without expiry", rs256("exp", nil), Invalid, "exp claim is required"},
		{"expiry as text", rs256("exp", "never"), Invalid, "exp"},
		{"not yet valid", rs256("nbf", in(time.Minute)), Invalid, "not valid yet"},
		{"not yet valid within the leeway", rs256("nbf", in(10*time.Second)), "", ""},
		{"issued in the future", rs256("iat", in(time.Minute)), Invalid, "used before issued"},
		{"issued within the leeway", rs256("iat", in(10*time.Second)), "", ""},
		{"another issuer", rs256("iss", "https://evil.example.com"), Invalid, "invalid issuer"},
		{"the issuer with a slash", rs256("iss", iss.URL+"/"), Invalid, "invalid issuer"},
		{"without issuer", rs256("iss", nil), Invalid, "iss claim is required"},
		{"another audience", rs256("aud", "other"), Invalid, "invalid audience"},
		{"without audience", rs256("aud", nil), Invalid, "aud claim is required"},
		{"without subject", rs256("sub", nil), Invalid, "the claim sub is empty"},
		{"an empty subject", rs256("sub", ""), Invalid, "the claim sub is empty"},
		{"a number as subject", rs256("sub", 7), Invalid, "the claim sub is empty, or is no string"},
		{"a subject with a line break", rs256("sub", "a\nb"), Invalid, "control characters"},

		{"no JWT", "prism_abc", Invalid, "token is malformed"},
		{"two parts", parts[0] + "." + parts[1], Invalid, "token is malformed"},
		{"not base64", "a.b.c", Invalid, "token is malformed"},
		{"a key id that is no text", header(t, `{"alg":"RS256","kid":{}}`) + "." + parts[1] + "." + parts[2], Invalid, "kid"},
		{"deep nesting", header(t, strings.Repeat("[", 9000)) + "." + parts[1] + "." + parts[2], Invalid, "token is malformed"},
		{"a long algorithm", header(t, `{"alg":"`+strings.Repeat("x", 8000)+`"}`) + "." + parts[1] + "." + parts[2], Invalid, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 { // what is remembered changes nothing
				caller, err := a.Authenticate(t.Context(), Credentials{Bearer: tt.token})
				if tt.fault != "" {
					refused(t, err, tt.fault, tt.detail)
					if len(Reason(err)) > 300 || strings.Contains(Reason(err), parts[2]) {
						t.Errorf("the log gets %q", Reason(err))
					}
					continue
				}
				if err != nil {
					t.Fatal(err, Reason(err))
				}
				left := time.Until(caller.Expires)
				if caller.Subject != "alice" || caller.Method != MethodJWT || left <= 0 || left > time.Hour+DefaultLeeway {
					t.Errorf("got %+v", caller)
				}
			}
		})
	}
}

func header(t *testing.T, text string) string {
	t.Helper()
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

func TestJWTSubjectClaimAndAlgorithms(t *testing.T) {
	iss := newIssuer(t, allKeys())
	cfg := iss.config()
	cfg.SubjectClaim, cfg.Algorithms, cfg.Leeway = "user.email", []string{"ES256"}, time.Second
	a, _ := openJWT(t, cfg)
	c := claims(iss.URL, "sub", nil, "user", map[string]any{"email": "al@example.com"}, "big", uint64(1<<63))
	caller, err := a.Authenticate(t.Context(), Credentials{Bearer: sign(t, jwt.SigningMethodES256, "ec", ecKey(), c)})
	if err != nil || caller.Subject != "al@example.com" {
		t.Fatal(caller, err, Reason(err))
	}
	if big, ok := (part{"big", claim}).fill(caller); !ok || big != "9223372036854775808" {
		t.Errorf("a large number reads %q", big)
	}
	_, err = a.Authenticate(t.Context(), Credentials{Bearer: sign(t, jwt.SigningMethodRS256, "rsa", rsaKey(), c)})
	refused(t, err, Invalid, "signing method RS256 is invalid")
	c["exp"] = time.Now().Add(-10 * time.Second).Unix()
	_, err = a.Authenticate(t.Context(), Credentials{Bearer: sign(t, jwt.SigningMethodES256, "ec", ecKey(), c)})
	refused(t, err, Expired, "")
}

// A bearer token decides alone.
func TestBearerBeforeCertificate(t *testing.T) {
	iss := newIssuer(t, allKeys())
	cfg := iss.config()
	token, hash := NewToken()
	a, err := Open(t.Context(), Config{
		Tokens: []Token{{Name: "ci", Hash: hash}}, JWT: &cfg, MTLS: &MTLS{},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	both := func(bearer string) (Caller, error) {
		return a.Authenticate(t.Context(), Credentials{Bearer: bearer, PeerCertificates: chain(t, nil)})
	}
	if c, err := both(""); err != nil || c.Method != MethodMTLS || c.Subject != "localhost" {
		t.Fatal(c, err)
	}
	if c, err := both(token); err != nil || c.Subject != "ci" {
		t.Fatal(c, err)
	}
	if c, err := both(sign(t, jwt.SigningMethodES256, "ec", ecKey(), claims(iss.URL))); err != nil || c.Subject != "alice" {
		t.Fatal(c, err)
	}
	_, err = both("nonsense")
	refused(t, err, Invalid, "")
	_, err = both(sign(t, jwt.SigningMethodES256, "ec", ecKey(), claims(iss.URL, "exp", 1)))
	refused(t, err, Expired, "")
}

func TestJWTValidate(t *testing.T) {
	good := JWT{Issuer: "https://issuer.example.com", Audiences: []string{"prism"}}
	for _, tt := range []struct {
		name   string
		change func(*JWT)
		want   string // of the error; empty: none
	}{
		{"good", func(*JWT) {}, ""},
		{"no issuer", func(j *JWT) { j.Issuer = "" }, "jwt.issuer: is required"},
		{"http", func(j *JWT) { j.Issuer = "http://issuer.example.com" }, "jwt.issuer: must be https"},
		{"http on this host", func(j *JWT) { j.Issuer = "http://127.0.0.1:5556/dex" }, ""},
		{"http on this host, by name", func(j *JWT) { j.Issuer = "http://localhost:5556" }, ""},
		{"http on this host, v6", func(j *JWT) { j.Issuer = "http://[::1]:5556" }, ""},
		{"http on a host that looks like this one", func(j *JWT) { j.Issuer = "http://localhost.example.com" }, "jwt.issuer: must be https"},
		{"no URL", func(j *JWT) { j.Issuer = "issuer" }, "jwt.issuer: expected a URL"},
		{"a URL with a password", func(j *JWT) { j.Issuer = "https://a:b@issuer.example.com" }, "jwt.issuer: expected a URL"},
		{"a URL with a query", func(j *JWT) { j.Issuer += "?a" }, "jwt.issuer: expected a URL without a query"},
		{"any issuer with a URL for keys", func(j *JWT) { j.Issuer, j.JWKSURL = "issuer", "https://a.example.com/keys?p=1" }, ""},
		{"http for keys", func(j *JWT) { j.JWKSURL = "http://a.example.com" }, "jwt.jwks_url: must be https"},
		{"a file for keys", func(j *JWT) { j.Issuer, j.JWKSFile = "issuer", "keys.json" }, ""},
		{"both", func(j *JWT) { j.JWKSURL, j.JWKSFile = "https://a", "b" }, "jwt.jwks_file: cannot"},
		{"authorities for a file", func(j *JWT) { j.JWKSFile, j.CAFile = "b", "c" }, "jwt.ca_file: is for a URL"},
		{"no audience", func(j *JWT) { j.Audiences = nil }, "jwt.audiences: at least one"},
		{"an empty audience", func(j *JWT) { j.Audiences = []string{"a", ""} }, "jwt.audiences: at least one"},
		{"HS256", func(j *JWT) { j.Algorithms = []string{"RS256", "HS256"} }, `jwt.algorithms: expected some of RS256, RS384`},
		{"none", func(j *JWT) { j.Algorithms = []string{"none"} }, "jwt.algorithms: "},
		{"leeway", func(j *JWT) { j.Leeway = 5*time.Minute + 1 }, "jwt.leeway: must be between"},
		{"negative leeway", func(j *JWT) { j.Leeway = -1 }, "jwt.leeway: must be between"},
		{"refresh", func(j *JWT) { j.RefreshInterval = time.Second }, "jwt.refresh_interval: must be at least"},
		{"start", func(j *JWT) { j.StartTimeout = -1 }, "jwt.start_timeout: must not be negative"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			err := Config{JWT: &cfg}.Validate()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && !errors.Is(err, multicastregistry.ErrInvalid) {
				t.Errorf("%v is no ErrInvalid", err)
			}
		})
	}
}

func TestCache(t *testing.T) {
	now := time.Now()
	long := Caller{Subject: "long", Expires: now.Add(time.Hour)}
	c := newCache()
	c.put([32]byte{1}, 1, long, now)
	c.put([32]byte{2}, 1, Caller{Subject: "short", Expires: now.Add(time.Second)}, now)
	for _, tt := range []struct {
		name       string
		hash       byte
		generation uint64
		at         time.Duration
		want       bool
	}{
		{"remembered", 1, 1, cacheTime - 1, true},
		{"another token", 3, 1, 0, false},
		{"until it expires", 2, 1, time.Second - 1, true},
		{"expired", 2, 1, time.Second, false},
		{"for a while", 1, 1, cacheTime, false},
		{"and then gone", 1, 1, 0, false},
	} {
		if _, ok := c.get([32]byte{tt.hash}, tt.generation, now.Add(tt.at)); ok != tt.want {
			t.Errorf("%s: %v", tt.name, ok)
		}
	}
	c.put([32]byte{1}, 1, long, now)
	if _, ok := c.get([32]byte{1}, 2, now); ok {
		t.Error("remembered although the keys have changed")
	}
	for i := range cacheTokens + 10 {
		c.put([32]byte{byte(i), byte(i >> 8), 1}, 1, long, now)
	}
	if len(c.tokens) != cacheTokens {
		t.Errorf("%d tokens", len(c.tokens))
	}
}

func FuzzJWT(f *testing.F) {
	keys := map[string]crypto.Signer{"ec": ecKey()}
	log := slog.New(slog.DiscardHandler)
	path := writeFile(f, "keys.json", jwks(f, keys))
	a, err := Open(f.Context(), Config{JWT: &JWT{Issuer: "me", Audiences: []string{"prism"}, JWKSFile: path}}, log)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(a.Close)
	good := sign(f, jwt.SigningMethodES256, "ec", ecKey(), claims("me"))
	parts := strings.Split(good, ".")
	for _, seed := range []string{good, good + "A", parts[0] + "." + parts[1] + ".", "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJFUzI1NiJ9.bnVsbA.AA"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if token == "" {
			return
		}
		caller, err := a.Authenticate(t.Context(), Credentials{Bearer: token})
		switch {
		case err != nil && (!errors.Is(err, ErrUnauthenticated) || caller.Method != MethodNone || len(Reason(err)) > 300):
			t.Fatalf("got %+v, %v, %q", caller, err, Reason(err))
		case err == nil && strings.Join(strings.Split(token, ".")[:2], ".") != parts[0]+"."+parts[1]:
			t.Fatalf("accepted %q", token)
		}
	})
}
