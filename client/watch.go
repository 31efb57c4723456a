package client

import (
	"context"
	"iter"
	"time"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// What Watch tells.
const (
	// Present means that the identity matches: it is a part of a snapshot.
	Present = multicastregistry.WatchPresent
	// Synced means that all that matched has been told, or all that has changed since the resume token.
	Synced = multicastregistry.WatchSynced
	// Joined means that the identity matches and did not before.
	Joined = multicastregistry.WatchJoined
	// Updated means that the identity, which matched and matches, was registered anew.
	Updated = multicastregistry.WatchUpdated
	// Left means that the identity does not match any more.
	Left = multicastregistry.WatchLeft
	// Bookmark means that nothing has happened: only the resume token is newer.
	Bookmark = multicastregistry.WatchBookmark
	// Reset means that what was told is void: a snapshot and Synced follow.
	Reset = multicastregistry.WatchReset
)

// Why an identity has left.
const (
	// LeftUnregistered means that it was unregistered.
	LeftUnregistered = multicastregistry.LeftUnregistered
	// LeftExpired means that its lease ended.
	LeftExpired = multicastregistry.LeftExpired
	// LeftFilter means that it was registered anew and matches no longer.
	LeftFilter = multicastregistry.LeftFilter
)

type (
	// WatchEventType says what a WatchEvent tells.
	WatchEventType = multicastregistry.WatchEventType
	// LeftReason says why an identity has left.
	LeftReason = multicastregistry.LeftReason
)

// WatchQuery says what to watch.
type WatchQuery struct {
	// Filter selects by metadata, as in Query; nil or empty matches every identity.
	Filter map[string]any
	// OmitMetadata leaves the metadata of the identities out.
	OmitMetadata bool
	// OmitSnapshot leaves the identities out that match when the watch begins: Synced comes at once, then changes.
	OmitSnapshot bool
	// ResumeToken is that of an event of an earlier watch with the same filter, behind which this one goes on: what has happened
	// since comes before Synced. Where that is not known any more, Reset and a snapshot come. Empty: begin with a snapshot.
	ResumeToken string
	// OnInterrupted is called when the watch was cut off, or does not come about, and is tried again by itself. Optional.
	OnInterrupted func(error)
}

// WatchEvent is something that happened to the set of identities that match.
type WatchEvent struct {
	// Type says what.
	Type WatchEventType
	// Identity is whom it happened to; as it matched last, of one that Left. Unset for Synced, Bookmark and Reset.
	Identity Identity
	// Reason says why it Left.
	Reason LeftReason
	// ResumeToken is where a watch goes on: behind this event, or, of events that come together, before the first of them for all
	// but the last. Empty while a snapshot is told, from which nothing can go on.
	ResumeToken string
}

// Watch yields who matches a filter, as Present, then Synced, and then who joins, is registered anew, and leaves, as it
// happens, until the context ends: its error is yielded as the last element, as is any other that trying again cannot heal.
//
// A watch that was cut off goes on by itself: with what has happened meanwhile, or, where that is not known any more, with
// Reset and a snapshot. Heartbeats are no events. A program that handles events slowly is told several changes of an identity as
// one, and gets a Reset when it is slower than the server remembers. So a program that keeps those that it is told of, drops
// those that Left, and drops all at Reset, has the set that matches, but for what is on its way.
func (c *Client) Watch(ctx context.Context, q WatchQuery) iter.Seq2[WatchEvent, error] {
	return func(yield func(WatchEvent, error) bool) {
		match, err := toStruct("filter", q.Filter)
		if err == nil {
			err = checkText("resume_token", q.ResumeToken)
		}
		if err != nil {
			yield(WatchEvent{}, err)
			return
		}
		w := watch{client: c, query: q, yield: yield, request: &patternpb.WatchRequest{
			Namespace: c.namespace, Filter: match, IncludeMetadata: new(!q.OmitMetadata), OmitSnapshot: q.OmitSnapshot,
			ResumeToken: q.ResumeToken,
		}}
		if err := w.run(ctx); err != nil {
			yield(WatchEvent{}, err)
		}
	}
}

// watch is one call of Watch: streams, one after the other.
type watch struct {
	client  *Client
	query   WatchQuery
	request *patternpb.WatchRequest
	yield   func(WatchEvent, error) bool

	partial bool // a snapshot was begun and not finished
}

// run returns nil when the reader breaks off.
func (w *watch) run(ctx context.Context) error {
	for wait := (retry{}); ; {
		began := time.Now()
		stopped, err := w.follow(ctx)
		if stopped {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if w.client.endless(err) {
			return err
		}
		if time.Since(began) > steady {
			wait = retry{}
		}
		if w.query.OnInterrupted != nil {
			w.query.OnInterrupted(err)
		}
		if err := w.client.pause(ctx, wait.next()); err != nil {
			return err
		}
	}
}

// follow reads a stream until it ends, or the reader breaks off.
func (w *watch) follow(ctx context.Context) (stopped bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if w.partial { // what was told of the snapshot is no place to go on from
		w.partial = false
		if !w.yield(WatchEvent{Type: Reset}, nil) {
			return true, nil
		}
	}
	stream, err := w.client.rpc.Watch(ctx, w.request, lazily)
	for err == nil {
		var reply watchReply
		if err = stream.RecvMsg(&reply); err != nil {
			break
		}
		if ctx.Err() != nil { // what has arrived by then would come still
			return false, ctx.Err()
		}
		before := w.request.GetResumeToken()
		if reply.token == "" {
			before = ""
		}
		w.request.ResumeToken, w.partial = reply.token, reply.token == ""
		for n, e := range reply.events {
			event := WatchEvent{
				Type: WatchEventType(e.kind), Identity: e.identity, Reason: LeftReason(e.reason), ResumeToken: before,
			}
			if n == len(reply.events)-1 {
				event.ResumeToken = reply.token
			}
			if !w.yield(event, nil) {
				return true, nil
			}
		}
	}
	return false, w.client.failed(err)
}
