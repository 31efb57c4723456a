package linearizability

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/prism-data-layer/prism/client"
)

// kind says what a client asks of one identity.
type kind uint8

const (
	create kind = iota
	replace
	unregister
	unregisterIf
	heartbeat
	read
)

// input is what a client asks of one identity.
type input struct {
	kind kind
	id   string
	// value is the metadata to register, which no other registration has. Of unregisterIf it names the registration whose
	// revision the call has.
	value string
	// least is the latest registration of this identity that a read has to reflect, by its revision. 0: none.
	least client.Revision
}

// output is what came back.
type output struct {
	// unknown says that the call failed in a way that leaves open whether it has taken effect, and whether it will.
	unknown bool
	// ok says that create and replace have stored, unregister has found, heartbeat has renewed, and read has seen.
	ok bool
	// value is the metadata that a read has seen.
	value string
	// revision is that of the registration that was stored or seen.
	revision client.Revision
	// expires is when the lease ends that was begun, renewed or seen, in milliseconds since 1970.
	expires int64
}

// state is what is known of one identity between two operations.
type state struct {
	// value is the metadata of the live registration. Empty: there is none.
	value string
	// revision is the latest one that a registration up to here is known to have.
	revision client.Revision
	// expires is the latest end that a lease up to here is known to have. All leases are of one length: it only grows.
	expires int64
}

// seen is the state when a revision and the end of a lease are known, and tells whether they are none from before.
func (s state) seen(out output) (right bool, next state) {
	right = out.revision >= s.revision && out.expires >= s.expires
	s.revision, s.expires = out.revision, out.expires
	return right, s
}

// step is the registry as it has to be, for one identity: what an operation makes of a state, and whether its answer is right.
// An outcome that is unknown is right in every state. Such an operation has no return, so that the checker may put it last,
// where nobody sees it: that stands for one without effect.
func step(s state, in input, out output) (right bool, next state) {
	switch in.kind {
	case create, replace:
		return put(s, in, out)
	case unregister, unregisterIf:
		existed := s.value != "" && (in.kind == unregister || s.value == in.value)
		next = s
		if existed {
			next.value = ""
		}
		return out.unknown || out.ok == existed, next
	case heartbeat:
		if out.ok {
			out.revision = s.revision
			right, next = s.seen(out)
			return right && s.value != "", next
		}
		return s.value == "", s
	default:
		if !out.ok {
			return s.value == "" && s.revision >= in.least, s
		}
		right, next = s.seen(out)
		return right && out.value == s.value && out.revision >= in.least, next
	}
}

func put(s state, in input, out output) (right bool, next state) {
	if in.kind == create && s.value != "" {
		return out.unknown || !out.ok, s
	}
	before := s.revision
	s.value = in.value
	if out.unknown {
		return true, s
	}
	right, next = s.seen(out)
	return right && out.ok && out.revision > before, next
}

// model is step as the checker takes it, for the operations on one identity.
var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(s, in, out any) (bool, any) { return step(s.(state), in.(input), out.(output)) },
	DescribeOperation: func(in, out any) string {
		return describe(in.(input), out.(output))
	},
	DescribeState: func(s any) string {
		if s := s.(state); s.value != "" {
			return s.value
		}
		return "absent"
	},
}

func describe(in input, out output) string {
	what := [...]string{"create", "replace", "unregister", "unregister if", "heartbeat", "read"}[in.kind]
	if in.value != "" {
		what += " " + in.value
	}
	if in.least > 0 {
		what += fmt.Sprintf(" (from revision %d on)", in.least)
	}
	lasts := ""
	if out.expires > 0 {
		lasts = ", until " + time.UnixMilli(out.expires).UTC().Format("15:04:05.000")
	}
	switch {
	case out.unknown:
		return what + ": unknown"
	case !out.ok:
		return what + ": " + [...]string{"it exists", "not stored", "absent", "it is another", "absent", "absent"}[in.kind]
	case in.kind == read:
		return fmt.Sprintf("%s: %s, revision %d%s", what, out.value, out.revision, lasts)
	case out.revision > 0:
		return fmt.Sprintf("%s: revision %d%s", what, out.revision, lasts)
	}
	return what + ": done" + lasts
}
