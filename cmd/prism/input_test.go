package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// all reads every line; one that is too long is shown with its size.
func all(in io.Reader, bound int) (lines []string, err error) {
	for r := newLineReader(in, bound); ; {
		line, err := r.next()
		long, isLong := errors.AsType[*longLineError](err)
		switch {
		case isLong:
			lines = append(lines, fmt.Sprintf("<%d>", long.size))
		case errors.Is(err, io.EOF):
			return lines, nil
		case err != nil:
			return lines, err
		default:
			lines = append(lines, string(line))
		}
	}
}

func TestLineReader(t *testing.T) {
	for _, row := range []struct {
		give string
		want []string
	}{
		{"", nil},
		{"\n", []string{""}},
		{"a", []string{"a"}},
		{"a\nb\r\n\n c\n", []string{"a", "b", "", " c"}},
		{"12345678\n12345678\r\n12345678", []string{"12345678", "12345678", "12345678"}},
		{"a\n123456789\nb\n", []string{"a", "<10>", "b"}},
		{"123456789", []string{"<9>"}},
		{"12345678\r9\n", []string{"<11>"}},
		{"1\r2\r\n", []string{"1\r2"}},
		{strings.Repeat("x", 3*chunkSize) + "\na", []string{fmt.Sprintf("<%d>", 3*chunkSize+1), "a"}},
	} {
		for name, in := range map[string]io.Reader{
			"at once":      strings.NewReader(row.give),
			"byte by byte": iotest.OneByteReader(strings.NewReader(row.give)),
			"with the end": iotest.DataErrReader(strings.NewReader(row.give)),
		} {
			if got, err := all(in, 8); err != nil || !slices.Equal(got, row.want) {
				t.Errorf("%.40q, %s: %q, %v; want %q", row.give, name, got, err, row.want)
			}
		}
	}
	bad := errors.New("bad disk")
	got, err := all(io.MultiReader(strings.NewReader("a\nhalf"), iotest.ErrReader(bad)), 8)
	if !errors.Is(err, bad) || !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q, %v", got, err)
	}
	if text := (&longLineError{bound: 8}).Error(); text != "is longer than 8 bytes" {
		t.Error(text)
	}
}

func FuzzLineReader(f *testing.F) {
	for _, s := range []string{"", "a\n", "\r\n", "123456789\nb", "a\r\r\nb"} {
		f.Add(s, 4)
	}
	f.Fuzz(func(t *testing.T, text string, bound int) {
		bound = max(bound, 0)
		want := strings.Split(text, "\n")
		if want[len(want)-1] == "" {
			want = want[:len(want)-1]
		}
		for i, line := range want {
			size := len(line)
			if i < len(want)-1 || strings.HasSuffix(text, "\n") {
				size++
			}
			if want[i] = strings.TrimSuffix(line, "\r"); len(want[i]) > bound {
				want[i] = fmt.Sprintf("<%d>", size)
			}
		}
		if got, err := all(strings.NewReader(text), bound); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	})
}

func TestInterruptible(t *testing.T) {
	text := strings.Repeat("0123456789", 20_000)
	for name, in := range map[string]io.Reader{
		"at once": strings.NewReader(text), "in halves": iotest.HalfReader(strings.NewReader(text)),
		"with the end": iotest.DataErrReader(strings.NewReader(text)),
	} {
		if got, err := io.ReadAll(newInterruptible(t.Context(), in)); err != nil || string(got) != text {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	bad := errors.New("bad disk")
	if _, err := io.ReadAll(newInterruptible(t.Context(), iotest.ErrReader(bad))); !errors.Is(err, bad) {
		t.Errorf("%v, want %v", err, bad)
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	in, feed := io.Pipe()
	defer feed.Close()
	r := newInterruptible(ctx, in)
	go func() {
		feed.Write([]byte("a")) // returns when it was read
		cancel(why)
	}()
	if got, err := io.ReadAll(r); !errors.Is(err, why) {
		t.Errorf("%q, %v; want %v", got, err, why)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, why) {
		t.Errorf("%v, want %v", err, why)
	}
}

// Ctrl-C while standard input has nothing to read.
func TestInterruptedInput(t *testing.T) {
	addr, _ := server(t)
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"multicast", "--all", "--payload", "-"}, "interrupted; nothing was sent"},
		{[]string{"register", "--file", "-"}, "interrupted; the lines that were begun were finished"},
		{[]string{"config", "validate", "-"}, "interrupted"},
	} {
		ctx, interrupt := context.WithCancel(t.Context())
		in, feed := io.Pipe()
		var out, errOut bytes.Buffer
		ended := make(chan int, 1)
		go func() { ended <- run(ctx, append([]string{"--server", addr}, row.args...), in, &out, &errOut) }()
		io.WriteString(feed, "\n") // returns when it was read: the next read is under way, or about to be
		interrupt()
		if code := <-ended; code != 1 || errOut.String() != "prism: "+row.want+"\n" {
			t.Errorf("prism %q: exit %d, %s; want %q", row.args, code, &errOut, row.want)
		}
		feed.Close()
	}
}
