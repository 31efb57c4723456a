package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/prism-data-layer/prism/client"
)

const (
	// registrationsAtOnce bounds the calls under way.
	registrationsAtOnce = 64
	// maxLine is the longest line of a file.
	maxLine = 4 << 20
)

// identityLine is a line of a file. What the server decides is accepted and passed over, so that the output of enumerate
// can be read.
type identityLine struct {
	Identity     string          `json:"identity"`
	Metadata     map[string]any  `json:"metadata"`
	TTL          string          `json:"ttl"`
	RegisteredAt json.RawMessage `json:"registered_at"`
	ExpiresAt    json.RawMessage `json:"expires_at"`
	Revision     json.RawMessage `json:"revision"`
}

// bulk is one file being registered.
type bulk struct {
	p      *program
	c      *client.Client
	name   string // of the file, for messages
	flags  registerFlags
	ttl    time.Duration // of lines that name none
	start  time.Time
	giveUp context.CancelCauseFunc // ends the reading

	mu         sync.Mutex // also guards the terminal
	bar        *progressbar.ProgressBar
	lines      int
	registered int
	failed     int
}

// registerFile registers every line of a file.
func (p *program) registerFile(ctx context.Context, f registerFlags) error {
	ttl, err := ttlOf(f.ttl)
	if err != nil {
		return fmt.Errorf("--%w", err)
	}
	in, name, size := p.in, "standard input", int64(-1)
	if f.file != "-" {
		file, err := os.Open(f.file)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // it was only read
		in, name = file, f.file
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
	}
	c, err := p.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	b := &bulk{p: p, c: c, name: name, flags: f, ttl: ttl, start: time.Now()}
	if watched(p.err) {
		b.bar = progressbar.NewOptions64(size, progressbar.OptionSetWriter(p.err), progressbar.OptionClearOnFinish(),
			progressbar.OptionSetWidth(40), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetDescription("registering"))
	}
	err = b.run(ctx, in)
	if b.bar != nil {
		_ = b.bar.Finish()
	}
	return b.summary(err)
}

// run reads lines and registers them, several at once; lines of one identity go to one worker, so that the last one wins.
// What was begun is finished when the context ends.
func (b *bulk) run(ctx context.Context, in io.Reader) error {
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	b.giveUp = stop
	var working sync.WaitGroup
	workers := make([]chan bulkLine, registrationsAtOnce)
	for i := range workers {
		lines := make(chan bulkLine, 4)
		workers[i] = lines
		working.Go(func() {
			for line := range lines {
				b.one(context.WithoutCancel(ctx), line)
			}
		})
	}
	seed := maphash.MakeSeed()
	err := b.read(reading, in, func(number int, text []byte) {
		r, err := b.parse(text)
		if err != nil {
			b.outcome(number, len(text)+1, r.ID, err)
			return
		}
		workers[maphash.String(seed, r.ID)%registrationsAtOnce] <- bulkLine{number, len(text) + 1, r}
	})
	for _, lines := range workers {
		close(lines)
	}
	working.Wait()
	if err == nil {
		err = context.Cause(reading) // what was found hopeless after the last line was read
	}
	return err
}

// read hands every line on that is not empty, and reports those that are too long.
func (b *bulk) read(ctx context.Context, in io.Reader, handle func(number int, line []byte)) error {
	lines := newLineReader(newInterruptible(ctx, in), maxLine)
	for number := 1; ; number++ {
		line, err := lines.next()
		long, isLong := errors.AsType[*longLineError](err)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case isLong:
			b.outcome(number, long.size, "", err)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case len(bytes.TrimSpace(line)) > 0:
			handle(number, line)
		}
	}
}

// bulkLine is one line that could be read.
type bulkLine struct {
	number, size int
	registration client.Registration
}

// one registers one line.
func (b *bulk) one(ctx context.Context, line bulkLine) {
	ctx, cancel := context.WithTimeout(ctx, b.p.timeout)
	defer cancel()
	_, err := b.c.Register(ctx, line.registration)
	b.outcome(line.number, line.size, line.registration.ID, err)
}

// outcome counts and tells what became of a line, which may name no identity.
func (b *bulk) outcome(number, size int, id string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines++
	if b.bar != nil {
		_ = b.bar.Add(size)
	}
	if err == nil {
		b.registered++
		return
	}
	b.failed++
	if hopeless(err) {
		b.giveUp(err)
		return
	}
	if b.bar != nil {
		_ = b.bar.Clear()
	}
	text := err.Error()
	if id != "" {
		text = cell(id) + ": " + text
	}
	b.p.complainf("%s:%d: %s", b.name, number, brief(text))
}

// hopeless tells whether the lines to come would fail in the same way.
func hopeless(err error) bool {
	for _, e := range []error{client.ErrUnavailable, client.ErrNotFound, client.ErrUnsupported} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (b *bulk) parse(line []byte) (client.Registration, error) {
	var l identityLine
	if err := decodeStrict(line, &l); err != nil {
		return client.Registration{}, lineFault(err)
	}
	r := client.Registration{ID: l.Identity, Metadata: l.Metadata, Mode: mode(b.flags.replace)}
	if l.Identity == "" {
		return r, errors.New(`"identity" is missing or empty`)
	}
	var err error
	if r.TTL, err = ttlOf(l.TTL); r.TTL == 0 {
		r.TTL = b.ttl
	}
	return r, err
}

// lineFault words what is wrong with a line for whoever wrote the file.
func lineFault(err error) error {
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case ok && wrong.Field == "":
		return fmt.Errorf(`expected an object such as {"identity": "dev-1"}, got %s`, jsonKind(wrong.Value))
	case ok:
		want := map[string]string{
			"identity": `text such as "dev-1"`, "metadata": `an object such as {"room": "lab"}`, "ttl": `text such as "30s" or "never"`,
		}
		return fmt.Errorf("%s: expected %s, got %s", wrong.Field, want[wrong.Field], jsonKind(wrong.Value))
	case strings.HasPrefix(err.Error(), "unknown field "):
		return fmt.Errorf("%w; a line has identity, metadata and ttl", err)
	}
	return err
}

// summary tells how far it got, and turns failed lines into the exit code.
func (b *bulk) summary(err error) error {
	took := time.Since(b.start)
	rate := float64(b.registered) / took.Seconds()
	if b.p.format == formatTable {
		fmt.Fprintf(b.p.out, "registered %d of %d identities in %s (%.0f a second); %d failed\n",
			b.registered, b.lines, took.Round(time.Millisecond), rate, b.failed)
	} else if shown := b.p.show(map[string]any{
		"lines": b.lines, "registered": b.registered, "failed": b.failed, "elapsed_seconds": took.Seconds(), "complete": err == nil,
	}); shown != nil {
		return shown
	}
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted; the lines that were begun were finished")
	case err != nil:
		return fmt.Errorf("gave up: %w", err)
	case b.failed > 0:
		return exit{exitError}
	}
	return nil
}
