package proxy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/auth"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func (e *events) add(s *eventStream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.by[s.id] = s
}

func (e *events) remove(s *eventStream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.by, s.id)
}

func (e *events) find(id string) *eventStream {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.by[id]
}

// ackRequest is the body of messages:ack.
type ackRequest struct {
	// Stream is what the attached event said.
	Stream string `json:"stream"`
	// Acks name messages that the stream received.
	Acks []struct {
		Identity  string `json:"identity"`
		MessageID string `json:"message_id"`
		ReplyCode uint32 `json:"reply_code"`
		ReplyBody string `json:"reply_body"` // base64, of either alphabet, padded or not, as everywhere in this API
	} `json:"acks"`
}

// ack serves messages:ack. It answers when the acks are on their way, in the order of the calls.
func (g *gateway) ack(w http.ResponseWriter, r *http.Request, vars map[string]string) {
	if g.server.serving.Load().authenticator != nil {
		if _, err := g.server.enterFor(r.Context(), vars["namespace"], auth.OpAck); err != nil {
			g.fail(w, r, err)
			return
		}
	}
	acks, id, err := readAcks(r.Body)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	e := g.server.events.find(id)
	if e == nil || e.namespace != vars["namespace"] || e.owner != ownerIn(r.Context()) {
		g.fail(w, r, fmt.Errorf("stream: %w: it has ended, or it is served by another proxy, or in another namespace, or its "+
			"acks are automatic (open it with ?ack=manual)", multicastregistry.ErrNotFound))
		return
	}
	if err := e.ack(acks); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("stream: %w: it has just ended", multicastregistry.ErrNotFound)
		}
		g.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, struct{}{})
}

func readAcks(body io.Reader) (acks []*patternpb.Ack, stream string, err error) {
	const shape = `expected {"stream": "…", "acks": [{"identity": "…", "message_id": "…"}]}, ` +
		`each ack with a "reply_code" (0 to 4294967295) and a "reply_body" (base64) if there is a reply`
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, "", invalid("body", err.Error())
	}
	if !utf8.Valid(raw) {
		return nil, "", invalid("body", "is not valid UTF-8")
	}
	var req ackRequest
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&req); err != nil {
		problem := err.Error()
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
			problem = wrong.Field + " cannot be a " + wrong.Value
		}
		return nil, "", invalid("body", problem+"; "+shape)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, "", invalid("body", "goes on behind the JSON object; "+shape)
	}
	if req.Stream == "" {
		return nil, "", invalid("stream", "must be what the stream's attached event said; "+shape)
	}
	if len(req.Acks) == 0 {
		return nil, "", invalid("acks", "must name at least one message; "+shape)
	}
	for i, a := range req.Acks {
		if a.Identity == "" || a.MessageID == "" {
			return nil, "", invalid(fmt.Sprintf("acks/%d", i), "must have an identity and a message_id; "+shape)
		}
		reply, err := readBase64(a.ReplyBody)
		if err != nil {
			return nil, "", invalid(fmt.Sprintf("acks/%d/reply_body", i), "must be base64: "+err.Error())
		}
		if err := checkReply(i, reply); err != nil {
			return nil, "", err
		}
		acks = append(acks, &patternpb.Ack{
			Identity: a.Identity, MessageId: a.MessageID, ReplyCode: a.ReplyCode, ReplyBody: reply,
		})
	}
	return acks, req.Stream, nil
}

// readBase64 reads what protobuf's JSON reads as bytes.
func readBase64(text string) ([]byte, error) {
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	return base64.RawStdEncoding.DecodeString(text)
}
