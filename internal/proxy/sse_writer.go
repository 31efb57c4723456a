package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// sseWriter writes server-sent events.
type sseWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	text    bytes.Buffer // events that wait for a flush
}

func newSSEWriter(w http.ResponseWriter) *sseWriter {
	return &sseWriter{w: w, control: http.NewResponseController(w)}
}

// begin writes the headers.
func (s *sseWriter) begin() {
	h := s.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	s.w.WriteHeader(http.StatusOK)
}

// event adds one event to the text that waits. Its data are values of our own that encoding/json cannot refuse, and JSON
// has no raw line breaks that could end the event early.
func (s *sseWriter) event(name, id string, data any) {
	s.text.WriteString("event: " + name + "\n")
	if id != "" && !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' }) {
		s.text.WriteString("id: " + id + "\n")
	}
	s.text.WriteString("data: ")
	if err := json.NewEncoder(&s.text).Encode(data); err != nil { // ends with a line break
		panic(fmt.Sprintf("encode event %s: %v", name, err))
	}
	s.text.WriteByte('\n')
}

// flush writes what waits to the connection.
func (s *sseWriter) flush() error {
	if _, err := s.text.WriteTo(s.w); err != nil {
		return err
	}
	return s.control.Flush()
}

// relay writes what a stream brings, with a comment now and then so that the connection is not taken for dead, until either
// side ends. Cancel ends the stream.
func relay[M any](
	g *gateway, r *http.Request, out *sseWriter, stream receiver[M], write func(M) error, cancel func(),
) {
	messages := make(chan M)
	var ended error // why the stream ended; read after messages was closed
	var receiving sync.WaitGroup
	defer receiving.Wait()
	defer cancel()
	receiving.Go(func() {
		defer close(messages)
		for {
			m, err := stream.Recv()
			if err != nil {
				ended = err
				return
			}
			select {
			case messages <- m:
			case <-stream.Context().Done():
				ended = stream.Context().Err()
				return
			}
		}
	})
	beat := time.NewTicker(g.server.cfg.SSEHeartbeat)
	defer beat.Stop()
	for {
		var err error
		select {
		case m, ok := <-messages:
			if !ok {
				if r.Context().Err() == nil && !errors.Is(ended, io.EOF) {
					out.event("error", "", g.failure(r, ended).Error)
					_ = out.flush()
				}
				return
			}
			err = write(m)
		case <-beat.C:
			out.text.WriteString(": heartbeat\n\n")
			err = out.flush()
		}
		if err != nil {
			return
		}
	}
}

// receiver is the side of a stream that messages come from.
type receiver[M any] interface {
	Recv() (M, error)
	Context() context.Context
}
