package auth

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Reloader keeps a server's certificates as the files have them.
type Reloader struct {
	cfg     TLS
	log     *slog.Logger
	current atomic.Pointer[tls.Config]
	cancel  context.CancelFunc
	running sync.WaitGroup

	text []byte // the files' content at the last look, good or not; the goroutine's own
	last string // its error, of which one like it has been logged

	mu  sync.Mutex
	err error // of the last look
}

// ServerTLS reads the files, which must be good, and watches them until Close.
func ServerTLS(cfg TLS, log *slog.Logger) (*Reloader, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Reloader{cfg: cfg.withDefaults(), log: log}
	config, text, err := r.cfg.read()
	if err != nil {
		return nil, err
	}
	r.text = text
	r.current.Store(config)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.running.Go(func() { r.run(ctx) })
	return r, nil
}

// Config returns the configuration for a server that speaks the protocols, the one that it likes best first. Every handshake
// uses the certificates of its time.
func (r *Reloader) Config(nextProtos ...string) *tls.Config {
	outer := r.current.Load().Clone()
	outer.NextProtos = nextProtos
	var made atomic.Pointer[served]
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		current := r.current.Load()
		if s := made.Load(); s != nil && s.of == current {
			return s.config, nil
		}
		config := current.Clone()
		config.NextProtos = nextProtos
		made.Store(&served{current, config})
		return config, nil
	}
	return outer
}

// served is a configuration with the protocols of one server.
type served struct{ of, config *tls.Config }

// Leaf returns the certificate that the server shows now.
func (r *Reloader) Leaf() *x509.Certificate { return r.current.Load().Certificates[0].Leaf }

// Check says why the files as they are now cannot be used. It is nil when they are in use.
func (r *Reloader) Check() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Close ends the watch and waits for it. The configurations stay usable.
func (r *Reloader) Close() {
	r.cancel()
	r.running.Wait()
}

func (r *Reloader) run(ctx context.Context) {
	ticker := time.NewTicker(r.cfg.PollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// look takes what the files hold if it is new and works.
func (r *Reloader) look(ctx context.Context) {
	config, text, err := r.cfg.read()
	same := bytes.Equal(text, r.text)
	switch {
	case err != nil:
		if err.Error() != r.last {
			r.log.LogAttrs(ctx, slog.LevelWarn, "cannot use the changed TLS files, the old ones stay in use", slog.Any("error", err))
		}
		r.last = err.Error()
	case !same || r.last != "":
		r.current.Store(config)
		r.last = ""
		r.log.LogAttrs(ctx, slog.LevelInfo, "reloaded the TLS files", slog.Time("not_after", r.Leaf().NotAfter))
	}
	r.text = text
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}
