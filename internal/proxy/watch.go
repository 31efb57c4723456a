package proxy

import (
	"iter"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

var errWatchGone = status.Error(codes.Unavailable, "the server is shutting down, or the namespace is being changed; watch again")

// Watch implements the RPC. A client that reads slowly blocks Send, and the coordinator makes its news fewer meanwhile.
func (s *service) Watch(req *patternpb.WatchRequest, wire grpc.ServerStreamingServer[patternpb.WatchResponse]) error {
	n, err := s.enter(wire.Context(), req.GetNamespace())
	if err != nil {
		return err
	}
	match, err := n.asked(req.GetFilter())
	if err != nil {
		return err
	}
	taken, err := n.Limits.Stream(n.owner)
	if err != nil {
		return err
	}
	defer taken.End()
	measured := s.measured(n.Coordinator)
	measured.Watchers(1)
	defer measured.Watchers(-1)
	ctx, cancel := n.drain.untilLeaving(wire.Context())
	defer cancel()
	metadata := req.IncludeMetadata == nil || req.GetIncludeMetadata()
	watch := multicastregistry.Watch{
		Match: n.grant.Restrict(match), After: req.GetResumeToken(), OmitSnapshot: req.GetOmitSnapshot(),
	}
	// A Send that is blocked by a client that does not read ends when the handler has returned, and not before.
	sent := make(chan error, 1)
	s.streams.Go(func() {
		var err error
		defer func() { sent <- recovered(recover(), err) }()
		err = n.tellNews(wire, n.Coordinator.Watch(ctx, watch), metadata)
	})
	select {
	case err = <-sent:
	case <-ctx.Done():
		select {
		case err = <-sent:
		case <-time.After(farewell):
		}
	}
	if ctx.Err() != nil && wire.Context().Err() == nil {
		return errWatchGone
	}
	return err
}

func (e *entered) tellNews(
	wire grpc.ServerStreamingServer[patternpb.WatchResponse], watch iter.Seq2[multicastregistry.News, error], metadata bool,
) error {
	for news, err := range watch {
		if err == nil {
			err = e.redactNews(&news)
		}
		if err == nil {
			err = wire.Send(shownNews(&news, metadata))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// redactNews takes hidden fields out of news, whose events may be shared.
func (e *entered) redactNews(news *multicastregistry.News) (err error) {
	if !e.grant.Restricted() {
		return nil
	}
	news.Events = slices.Clone(news.Events)
	for i := range news.Events {
		of := &news.Events[i].Identity
		if of.Encoded, err = e.grant.RedactEncoded(of.Encoded); err != nil {
			return err
		}
	}
	return nil
}

// The numbers of fields in the .proto; a test holds them together.
const (
	fieldEvents = 1 // WatchResponse.events

	fieldType     = 1 // of WatchEvent
	fieldIdentity = 2
	fieldReason   = 3
)

// shownNews shows what a watcher is told. As in shownPage, the events are written as they go over the wire.
func shownNews(news *multicastregistry.News, metadata bool) *patternpb.WatchResponse {
	size := 0
	for i := range news.Events {
		size += len(news.Events[i].Identity.ID) + len(news.Events[i].Identity.Encoded) + identityOverhead
	}
	raw := *pages.Get(size)
	for i := range news.Events {
		e := &news.Events[i]
		raw = protowire.AppendTag(raw, fieldEvents, protowire.BytesType)
		raw = appendSized(raw, func(b []byte) []byte {
			b = protowire.AppendTag(b, fieldType, protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(e.Type))
			if e.Identity.ID != "" {
				b = protowire.AppendTag(b, fieldIdentity, protowire.BytesType)
				b = appendSized(b, func(b []byte) []byte { return appendIdentity(b, &e.Identity, metadata) })
			}
			if e.Reason != 0 {
				b = protowire.AppendTag(b, fieldReason, protowire.VarintType)
				b = protowire.AppendVarint(b, uint64(e.Reason))
			}
			return b
		})
	}
	out := &patternpb.WatchResponse{ResumeToken: news.Token}
	out.ProtoReflect().SetUnknown(raw)
	return out
}
