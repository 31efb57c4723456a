package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// told returns how many lines a log has, and of how many they tell.
func told(log string) (lines, all int) {
	for _, match := range regexp.MustCompile(`(?m)^.*?(not_written=(\d+))?$`).FindAllStringSubmatch(strings.TrimSpace(log), -1) {
		others, _ := strconv.Atoi(match[2])
		lines++
		all += 1 + others
	}
	return lines, all
}

func TestSparing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := &syncBuffer{}
		s := newSparing(slog.New(slog.NewTextHandler(out, nil)))
		write := func(kind string, times int) {
			for n := range times {
				s.write(t.Context(), slog.LevelWarn, kindName{what: kind}, "failed", slog.Int("n", n))
			}
		}
		check := func(lines, all int) {
			t.Helper()
			synctest.Wait()
			if l, a := told(out.String()); l != lines || a != all {
				t.Fatalf("%d lines that tell of %d, want %d of %d:\n%s", l, a, lines, all, out.String())
			}
		}
		write("a", 1000)
		check(mostLines, mostLines)
		write("b", 1) // is none of a's business
		check(mostLines+1, mostLines+1)
		<-time.After(sparingTime)
		check(mostLines+2, 1001) // with nothing that came after it
		if !strings.Contains(out.String(), "n=999 not_written=989") {
			t.Errorf("the last one is not told:\n%s", out.String())
		}
		write("a", mostLines) // one of the new second is written already
		check(2*mostLines+1, 1000+mostLines)
		<-time.After(sparingTime)
		check(2*mostLines+2, 1001+mostLines) // one was left, and is like any other
		<-time.After(time.Minute)
		write("a", mostLines)
		check(3*mostLines+2, 1001+2*mostLines)
		write("a", 5)
		s.flush()
		s.flush()
		check(3*mostLines+3, 1006+2*mostLines)
		<-time.After(time.Minute)
		check(3*mostLines+3, 1006+2*mostLines)
		s.write(t.Context(), slog.LevelDebug, kindName{what: "c"}, "the handler does not want this")
		if len(s.kinds) != 2 {
			t.Errorf("%d kinds are remembered", len(s.kinds))
		}
	})
}

func TestSparingTogether(t *testing.T) {
	t.Parallel()
	out := &syncBuffer{}
	s := newSparing(slog.New(slog.NewTextHandler(out, nil)))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 500 {
				s.write(t.Context(), slog.LevelError, kindName{what: "x", which: fmt.Sprint(i % 3)}, "failed")
				if i == 0 {
					s.flush()
				}
			}
		})
	}
	all.Wait()
	s.flush()
	if _, n := told(out.String()); n != 4000 {
		t.Errorf("the log tells of %d of 4000", n)
	}
}

// TestDeadBackendFillsNoDisk has hundreds of calls fail, and one line for many of them.
func TestDeadBackendFillsNoDisk(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{}, fill{registry: &brokenRegistry{fail: func(context.Context) error {
		return fmt.Errorf("redis away: %w", multicastregistry.ErrUnavailable)
	}}}, fill{
		cfg:      multicastregistry.Config{Namespace: "faulty"},
		registry: &brokenRegistry{fail: func(context.Context) error { return errors.New("a fault") }},
	})
	const kinds, calls = 4, 100
	start := time.Now()
	for range calls {
		_, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "a"})
		if status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		_, err = b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Namespace: "faulty", Identity: "a"})
		if status.Code(err) != codes.Internal {
			t.Fatal(err)
		}
		b.do("GET", "/readyz", "")
	}
	b.sparing.flush()
	most := kinds * (mostLines + 1) * (2 + int(time.Since(start)/sparingTime))
	if lines, all := told(b.log.String()); all != kinds*calls || lines > most {
		t.Errorf("%d lines tell of %d, want at most %d of %d", lines, all, most, kinds*calls)
	}
	if !strings.Contains(b.log.String(), "not ready") || !strings.Contains(b.log.String(), "a fault") {
		t.Errorf("the log lacks a kind:\n%s", b.log.String())
	}
}
