package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prism-data-layer/prism/internal/proxy"
)

// watchEvery is how often a configuration file is looked at.
const watchEvery = time.Second

// Reload says how a server follows its configuration while it runs. Namespaces that are added, changed or removed, access,
// limits, schemas, accepted credentials and the drain timeout are taken over. Listen, tls, audit_log, tracing and startup_timeout
// are not: a change there is logged, and waits for a restart. A configuration that cannot be used changes nothing, and the log
// says why.
type Reload struct {
	// File is looked at once a second: when its content has changed, the configuration is parsed. What is no regular file is
	// never looked at.
	File string
	// Loaded is what the file held when the configuration was loaded that is in use.
	Loaded []byte
	// Parse reads the configuration from what the file holds.
	Parse func(src []byte) (Config, error)
	// Now makes the server look at once, with each value, and take over what it finds. Nil: nothing does.
	Now <-chan os.Signal
}

// An Option changes how Run serves.
type Option func(*options)

type options struct{ reload *Reload }

// WithReload makes the server follow its configuration.
func WithReload(r Reload) Option { return func(o *options) { o.reload = &r } }

// reloader follows the configuration of a server. It is for one goroutine, but for the drain timeout.
type reloader struct {
	Reload

	server  *proxy.Server
	running *running
	logger  *slog.Logger
	seen    []byte // of the file, when it was last loaded
	pending []byte // what it held at the last look, if that was new

	drainTimeout atomic.Int64   // a time.Duration
	closing      sync.WaitGroup // of what calls may still use
}

// newReloader returns one that has nothing to follow without a Reload.
func newReloader(with *Reload, drainTimeout time.Duration, logger *slog.Logger) *reloader {
	r := &reloader{logger: logger}
	r.drainTimeout.Store(int64(drainTimeout))
	if with != nil {
		r.Reload = *with
		r.seen = r.Loaded
	}
	return r
}

// start follows the configuration until ctx ends or stop is called, which waits for the end.
func (r *reloader) start(ctx context.Context) (stop func()) {
	var running sync.WaitGroup
	follow, end := context.WithCancel(ctx)
	if r.Parse != nil {
		running.Go(func() { r.run(follow) })
	}
	return func() {
		end()
		running.Wait()
		r.closing.Wait()
	}
}

// run follows the configuration until ctx ends.
func (r *reloader) run(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-r.Now:
			if held, err := r.read(); err != nil {
				r.refuse(ctx, err)
			} else {
				r.seen, r.pending = held, nil
				r.load(ctx)
			}
		case <-ticker.C:
			if r.changed() {
				r.load(ctx)
			}
		case <-ctx.Done():
			return
		}
	}
}

// read returns what the file holds. It reads regular files alone: others may make it wait.
func (r *reloader) read() ([]byte, error) {
	switch info, err := os.Stat(r.File); {
	case err != nil:
		return nil, fmt.Errorf("read the configuration: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file: it can be read once only", r.File)
	}
	return os.ReadFile(r.File)
}

// changed tells whether the file holds something new, and did so at the look before: who writes it may need a moment.
func (r *reloader) changed() bool {
	held, err := r.read()
	switch {
	case err != nil || bytes.Equal(held, r.seen): // it may be about to be replaced
		r.pending = nil
		return false
	case r.pending == nil || !bytes.Equal(held, r.pending):
		r.pending = held
		return false
	}
	r.seen, r.pending = held, nil
	return true
}

// refuse notes why the configuration was not taken over.
func (r *reloader) refuse(ctx context.Context, err error) {
	r.server.Reloaded(false)
	r.logger.LogAttrs(ctx, slog.LevelError, "the configuration was not reloaded: the one before stays in use",
		slog.Any("error", err))
}

// load takes over the configuration that was seen last, or says why not.
func (r *reloader) load(ctx context.Context) {
	changes, err := r.apply(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		r.refuse(ctx, err)
		return
	}
	r.server.Reloaded(true)
	r.logger.LogAttrs(ctx, slog.LevelInfo, "configuration reloaded", changes...)
}

func (r *reloader) apply(ctx context.Context) ([]slog.Attr, error) {
	cfg, err := r.Parse(r.seen)
	if err != nil {
		return nil, err
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	before := r.running.cfg
	if needs := needRestart(&cfg, before); len(needs) > 0 {
		r.logger.LogAttrs(ctx, slog.LevelWarn, "changes in the configuration that need a restart are left out", slog.Any("of", needs))
	}
	if err := cfg.checkExposure(ctx, r.logger); err != nil {
		return nil, err
	}
	now, err := r.running.next(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := now.copied(ctx, r.running); err != nil {
		return nil, errors.Join(err, now.closeBut(r.running))
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.DrainTimeout) // the server's own drain would end it
	defer cancel()
	left, err := r.server.Reconfigure(drain, now.served(), now.authenticator)
	if err != nil {
		return nil, errors.Join(err, now.closeBut(r.running))
	}
	for _, n := range now.namespaces {
		n.Limits.Hold()
	}
	changes := now.changesFrom(r.running)
	closeRest := r.running.rest(now)
	r.running = now
	r.closing.Go(func() {
		<-left
		if err := closeRest(); err != nil {
			r.logger.LogAttrs(ctx, slog.LevelWarn, "what is not needed any more did not close cleanly", slog.Any("error", err))
		}
	})
	r.drainTimeout.Store(int64(cfg.DrainTimeout))
	return changes, nil
}

// needRestart names what was changed that only a restart takes over, and makes it as it was.
func needRestart(cfg *Config, before Config) (names []string) {
	keep := func(name string, same bool) {
		if !same {
			names = append(names, name)
		}
	}
	keep("listen", reflect.DeepEqual(cfg.Listen, before.Listen))
	keep("tls", reflect.DeepEqual(cfg.TLS, before.TLS))
	keep("audit_log", cfg.AuditLog == before.AuditLog)
	keep("tracing", reflect.DeepEqual(cfg.Tracing, before.Tracing))
	keep("startup_timeout", cfg.StartupTimeout == before.StartupTimeout)
	cfg.Listen, cfg.TLS, cfg.AuditLog = before.Listen, before.TLS, before.AuditLog
	cfg.Tracing, cfg.StartupTimeout = before.Tracing, before.StartupTimeout
	return names
}

// changesFrom tells what became of the namespaces. In a restarted one streams are opened again.
func (r *running) changesFrom(before *running) []slog.Attr {
	var added, restarted, changed, removed []string
	for _, n := range r.namespaces {
		name := n.cfg.Namespace
		switch was := before.find(name); {
		case was.Coordinator == nil:
			added = append(added, name)
		case was.Coordinator != n.Coordinator || was.Policy != n.Policy:
			restarted = append(restarted, name)
		case !reflect.DeepEqual(was.cfg, n.cfg):
			changed = append(changed, name)
		}
		if was := before.find(name); was.Coordinator != nil {
			for i, of := range [...]string{n.Registry, n.Messaging, n.Durability} {
				if n.slots[i] != was.slots[i] && (of == typeMemory || n.slots[i].passing && was.slots[i].passing) {
					r.logger.Warn("a slot in this process begins empty: its options were changed", slog.String("namespace", name),
						slog.String("slot", [...]string{slotRegistry, slotMessaging, slotDurability}[i]))
				}
			}
		}
	}
	for _, was := range before.namespaces {
		if r.find(was.cfg.Namespace).Coordinator == nil {
			removed = append(removed, was.cfg.Namespace)
		}
	}
	var attrs []slog.Attr
	for _, of := range []struct {
		what  string
		names []string
	}{{"added", added}, {"restarted", restarted}, {"changed", changed}, {"removed", removed}} {
		if len(of.names) > 0 {
			attrs = append(attrs, slog.Any(of.what, of.names))
		}
	}
	if !reflect.DeepEqual(r.cfg.Auth, before.cfg.Auth) {
		attrs = append(attrs, slog.Bool("auth", r.cfg.Auth != nil))
		if r.cfg.Auth == nil {
			r.logger.Warn("nobody is asked any more who is calling: whoever reaches this server may do everything")
		}
	}
	if r.cfg.DrainTimeout != before.cfg.DrainTimeout {
		attrs = append(attrs, slog.Duration("drain_timeout", r.cfg.DrainTimeout))
	}
	return append(attrs, slog.Int("namespaces", len(r.namespaces)))
}
