package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// hurry bounds the time in which a request's body must have arrived. It holds too where nobody reads the body, because net/http
// then does before it answers, and would wait for ever.
func (g *gateway) hurry(w http.ResponseWriter, r *http.Request) {
	if r.Body != nil && r.Body != http.NoBody {
		// Every server of net/http can.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(g.server.cfg.BodyTimeout))
	}
}

// readBody takes the whole body in, within bounds of size and time, so that what follows never waits for the client.
func (g *gateway) readBody(w http.ResponseWriter, r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return httpError(http.StatusUnsupportedMediaType, codes.InvalidArgument,
			"the body is encoded as %q; send it as it is", shorten(coding))
	}
	if r.ContentLength > g.maxBody {
		return g.tooLarge()
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.maxBody))
	switch _, large := errors.AsType[*http.MaxBytesError](err); {
	case large:
		return g.tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return httpError(http.StatusRequestTimeout, codes.DeadlineExceeded,
			"the body did not arrive within %s", g.server.cfg.BodyTimeout)
	case err != nil:
		return status.Error(codes.InvalidArgument, "the body could not be read: "+clean(err.Error()))
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	if len(body) > 0 && r.Method != http.MethodPost {
		return invalid("body", r.Method+" takes none here; parameters go into the query")
	}
	if err := checkValues(body, g.server.serving.Load().maxValues); err != nil {
		return invalid("body", err.Error())
	}
	r.Body = &held{Reader: bytes.NewReader(body), all: body}
	r.ContentLength = int64(len(body))
	return nil
}

// held is a body that has been read.
type held struct {
	*bytes.Reader

	all []byte
}

// Close implements io.Closer.
func (h *held) Close() error { return nil }

// readAll returns what a reader has, and a body that is held as it is.
func readAll(r io.Reader) ([]byte, error) {
	if body, ok := r.(*bodyOf); ok {
		r = body.ReadCloser
	}
	if body, ok := r.(*held); ok {
		return body.all, nil
	}
	return io.ReadAll(r)
}

func (g *gateway) tooLarge() error {
	return httpError(http.StatusRequestEntityTooLarge, codes.InvalidArgument,
		"the body is too large: at most %d bytes are allowed", g.maxBody)
}

// httpError is an error with a status that no code of gRPC has.
func httpError(code int, like codes.Code, format string, args ...any) error {
	return &runtime.HTTPStatusError{HTTPStatus: code, Err: status.Error(like, fmt.Sprintf(format, args...))}
}

// dropHeaders takes out of a request what the gateway would hand on, unread by anybody, and what could be too long for that. Who
// is calling has been found out by then.
func dropHeaders(r *http.Request) {
	for _, name := range []string{"Authorization", "X-Forwarded-For", "X-Forwarded-Host"} {
		r.Header.Del(name)
	}
}
