package auth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
)

// maxKeys is how many keys an issuer may have: a token that names none is tried with every one.
const maxKeys = 64

// minRSABits is the weakest RSA key that counts.
const minRSABits = 2048

// pace is how often keys are read.
type pace struct {
	every time.Duration // when all is well
	least time.Duration // between reads because of a key id that is not known
	retry time.Duration // after the first failure; doubled after each further one, up to every
	fetch time.Duration // the longest that one read takes
}

// keySet holds the keys of an issuer and reads them again, all in one goroutine. It is a jwkset.Storage, of which keyfunc uses
// KeyRead and KeyReadAll.
type keySet struct {
	*jwkset.MemoryJWKSet

	load func(ctx context.Context) ([]byte, error)
	pace pace
	log  *slog.Logger
	// generation grows when the keys change; it is 0 until there are some.
	generation atomic.Uint64
	kick       chan struct{}

	mu     sync.Mutex
	flight chan struct{} // closed when the read that is due or under way has ended; nil if there is none
	ended  time.Time     // when the last read did
	err    error         // of the last read

	text     []byte // of the keys; the goroutine's own
	failures int    // since the last success; the goroutine's own
}

// newKeySet returns a set that has a first read due.
func newKeySet(load func(ctx context.Context) ([]byte, error), pace pace, log *slog.Logger) *keySet {
	return &keySet{
		MemoryJWKSet: jwkset.NewMemoryStorage(), load: load, pace: pace, log: log,
		kick: make(chan struct{}, 1), flight: make(chan struct{}), err: errors.New("not read yet"),
	}
}

// KeyRead finds a key. When it is not known, and the last read was not just now, the keys are read first.
func (k *keySet) KeyRead(ctx context.Context, id string) (jwkset.JWK, error) {
	key, err := k.MemoryJWKSet.KeyRead(ctx, id)
	if err == nil || !k.ask() {
		return key, err
	}
	k.wait(ctx, k.pace.fetch)
	return k.MemoryJWKSet.KeyRead(ctx, id)
}

// ask makes a read due, unless the last one was just now. It tells whether there is something to wait for.
func (k *keySet) ask() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.flight != nil {
		return true
	}
	if time.Since(k.ended) < k.pace.least {
		return false
	}
	k.flight = make(chan struct{})
	select {
	case k.kick <- struct{}{}:
	default:
	}
	return true
}

// wait returns when the read that is due or under way has ended, or the time is up.
func (k *keySet) wait(ctx context.Context, most time.Duration) {
	k.mu.Lock()
	flight := k.flight
	k.mu.Unlock()
	if flight == nil {
		return
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-flight:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (k *keySet) loaded() bool { return k.generation.Load() > 0 }

func (k *keySet) check() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return fmt.Errorf("read the issuer's keys: %w", k.err)
	}
	return nil
}

// run reads the keys at once and then periodically, until ctx ends.
func (k *keySet) run(ctx context.Context) {
	for ctx.Err() == nil {
		timer := time.NewTimer(k.read(ctx))
		select {
		case <-timer.C:
		case <-k.kick:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// read reads the keys once and returns when to do so again.
func (k *keySet) read(ctx context.Context) (next time.Duration) {
	k.mu.Lock()
	if k.flight == nil {
		k.flight = make(chan struct{})
	}
	before := k.err
	k.mu.Unlock()

	bounded, cancel := context.WithTimeout(ctx, k.pace.fetch)
	defer cancel()
	text, err := k.load(bounded)
	if err == nil && !bytes.Equal(text, k.text) {
		err = k.replace(ctx, text)
	}
	next = k.pace.every
	switch {
	case err != nil && ctx.Err() != nil: // closing
	case err != nil:
		next = min(next, k.pace.retry<<min(k.failures, 20))
		k.failures++
		if before == nil || before.Error() != err.Error() {
			k.log.LogAttrs(ctx, slog.LevelWarn, "cannot read the issuer's keys", slog.Any("error", err),
				slog.Bool("old_keys", k.loaded()))
		}
	case k.failures > 0:
		k.failures = 0
		k.log.LogAttrs(ctx, slog.LevelInfo, "the issuer's keys can be read again")
	}

	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended, k.err = time.Now(), err
	close(k.flight)
	k.flight = nil
	return next - rand.N(next/10+1) // so that servers do not ask all at once
}

// replace takes the keys of a JWK set. Keys that cannot verify a signature are passed over, but some must.
func (k *keySet) replace(ctx context.Context, text []byte) error {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return fmt.Errorf("expected a JSON web key set: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return fmt.Errorf("the set has %d keys, the limit is %d", len(set.Keys), maxKeys)
	}
	var keys []jwkset.JWK
	var passedOver error
	for i, raw := range set.Keys {
		key, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err == nil {
			err = usable(key.Key())
		}
		if err != nil {
			passedOver = errors.Join(passedOver, fmt.Errorf("keys[%d]: %s", i, shorten(err.Error())))
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return fmt.Errorf("none of the %d keys in the set can verify a signature: %w", len(set.Keys), passedOver)
	}
	if err := k.KeyReplaceAll(ctx, keys); err != nil {
		return err
	}
	k.text = text
	k.generation.Add(1)
	k.log.LogAttrs(ctx, slog.LevelInfo, "read the issuer's keys", slog.Int("keys", len(keys)), slog.Any("passed_over", passedOver))
	return nil
}

func usable(key any) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits {
			return fmt.Errorf("an RSA key of %d bits, at least %d are needed", bits, minRSABits)
		}
		return nil
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return nil
	}
	return fmt.Errorf("%T does not verify signatures", key)
}
