package multicastregistry

import (
	"context"
	"fmt"
	"iter"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// Watcher is an optional ability of a registry that knows what its identities were before a change.
type Watcher interface {
	// Watch yields who matches, and then what changes about that, until the context ends. The first yields are the snapshot,
	// as Present, up to and with Synced, which always comes; from there on come Joined, Updated and Left, each once and in the
	// order of the changes, as far as the reader keeps up: of a reader that is slower, several changes of an identity become
	// one, and one that is too slow gets a Reset and a snapshot again. What a reader has been told is at every moment what
	// follows from all changes up to there, or, between a Reset and Synced, a part of it. Renewals are no changes.
	//
	// A reader that was cut off goes on with the token of the last News that it has handled: what has changed since comes
	// before Synced, without a snapshot, where it is known still; where it is not, a Reset and a snapshot come.
	//
	// An error comes once, as the last element: InvalidError for a token that is none or was of another filter,
	// ErrUnavailable when the registry cannot tell what is going on, ErrUnsupported when it is no longer able to watch, and the
	// context's error. A reader that is slow slows neither the registry nor another reader.
	Watch(ctx context.Context, w Watch) iter.Seq2[News, error]
}

// Watch says what to watch.
type Watch struct {
	// Match selects; nil matches everything.
	Match *filter.Expr
	// After is the Token of the News after which to go on. Empty: begin with a snapshot.
	After string
	// OmitSnapshot leaves Present out: Synced comes at once, or right after a Reset.
	OmitSnapshot bool
}

// News is a part of what a watcher is told.
type News struct {
	// Events in order; one at least.
	Events []WatchEvent
	// Token is where to go on after these events. Empty while a snapshot is told: who is cut off there begins again, and forgets
	// what it was told of it.
	Token string
}

// WatchEvent is something that happened to the set of identities that match.
type WatchEvent struct {
	// Type says what.
	Type WatchEventType
	// Identity is whom it happened to; as it matched last, of one that Left. It has Encoded set in place of Metadata. Unset
	// for Synced, Bookmark and Reset.
	Identity Identity
	// Reason says why it Left.
	Reason LeftReason
}

// WatchEventType says what a WatchEvent tells.
type WatchEventType uint8

// The types of events.
const (
	// WatchPresent means that the identity matches: it is a part of a snapshot.
	WatchPresent WatchEventType = iota + 1
	// WatchSynced means that all that matched, or has changed since a token, has been told.
	WatchSynced
	// WatchJoined means that the identity matches and did not before.
	WatchJoined
	// WatchUpdated means that the identity, which matched and matches, was registered anew.
	WatchUpdated
	// WatchLeft means that the identity does not match any more.
	WatchLeft
	// WatchBookmark means that nothing has happened: only the token is newer.
	WatchBookmark
	// WatchReset means that what was told is void: a snapshot and Synced follow.
	WatchReset
)

// String is the type in upper case, as on the wire.
func (t WatchEventType) String() string { return nameOf(eventTypes[:], t) }

var eventTypes = [...]string{
	"", "PRESENT", "SYNCED", "JOINED", "UPDATED", "LEFT", "BOOKMARK", "RESET",
}

// LeftReason says why an identity left those that match.
type LeftReason uint8

// The reasons to leave.
const (
	// LeftUnregistered means that it was removed.
	LeftUnregistered LeftReason = iota + 1
	// LeftExpired means that its lease ended.
	LeftExpired
	// LeftFilter means that it was registered anew and matches no longer.
	LeftFilter
)

// String is the reason in upper case, as on the wire.
func (r LeftReason) String() string { return nameOf(leftReasons[:], r) }

var leftReasons = [...]string{"", "UNREGISTERED", "EXPIRED", "NO_LONGER_MATCHES"}

func nameOf[T ~uint8](names []string, n T) string {
	if int(n) < len(names) {
		return names[n]
	}
	return fmt.Sprintf("%d", n)
}

// Watch yields who matches a filter, and then what changes about that: see Watcher. ErrUnsupported when the registry cannot
// be watched.
func (c *Coordinator) Watch(ctx context.Context, w Watch) iter.Seq2[News, error] {
	return func(yield func(News, error) bool) {
		if c.watcher == nil {
			yield(News{}, fmt.Errorf("watch: %w: the registry of namespace %s has no copy here that could be watched",
				ErrUnsupported, c.cfg.Namespace))
			return
		}
		c.watcher.Watch(ctx, w)(yield)
	}
}
