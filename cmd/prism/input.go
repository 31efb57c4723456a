package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// chunkSize is how much of a stream is read at once.
const chunkSize = 64 << 10

// chunk is what one Read of a stream gave.
type chunk struct {
	text []byte
	err  error
}

// interruptible reads a stream until a context ends, which then is the error.
type interruptible struct {
	ctx    context.Context
	chunks <-chan chunk
	rest   chunk
}

// newInterruptible makes a stream interruptible. The context must end when it is not read to its end. A read from a
// terminal or a pipe cannot be interrupted itself: what is under way then ends with the stream, or with the program.
func newInterruptible(ctx context.Context, in io.Reader) *interruptible {
	chunks := make(chan chunk)
	go func() {
		for {
			text := make([]byte, chunkSize)
			n, err := in.Read(text)
			select {
			case chunks <- chunk{text[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return &interruptible{ctx: ctx, chunks: chunks}
}

func (i *interruptible) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	for len(i.rest.text) == 0 {
		if i.rest.err != nil {
			return 0, i.rest.err
		}
		select {
		case i.rest = <-i.chunks:
		case <-i.ctx.Done():
			return 0, context.Cause(i.ctx)
		}
	}
	n := copy(p, i.rest.text)
	i.rest.text = i.rest.text[n:]
	return n, nil
}

// longLineError is a line that was passed over. The reading can go on behind it.
type longLineError struct {
	bound int
	size  int // with its end
}

func (e *longLineError) Error() string {
	if e.bound%(1<<20) == 0 {
		return fmt.Sprintf("is longer than %d MiB", e.bound>>20)
	}
	return fmt.Sprintf("is longer than %d bytes", e.bound)
}

// lineReader reads lines up to a bound, and never keeps more than that of one.
type lineReader struct {
	in    *bufio.Reader
	bound int
}

func newLineReader(in io.Reader, bound int) *lineReader {
	return &lineReader{in: bufio.NewReaderSize(in, chunkSize), bound: bound}
}

// next returns a line without its end, which is \n, \r\n or that of the stream; io.EOF behind the last one, and a
// *longLineError in place of a line beyond the bound. What stands before any other error is lost.
func (l *lineReader) next() ([]byte, error) {
	var line []byte
	size, long := 0, false
	for {
		part, err := l.in.ReadSlice('\n')
		size += len(part)
		if !long {
			line = append(line, part...)
			if long = len(withoutEnd(line)) > l.bound; long {
				line = nil
			}
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (!errors.Is(err, io.EOF) || size == 0):
			return nil, err
		case long:
			return nil, &longLineError{bound: l.bound, size: size}
		}
		return withoutEnd(line), nil
	}
}

func withoutEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}
