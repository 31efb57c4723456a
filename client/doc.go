// Package client is how Go programs use a Prism server: they register identities, find them by their metadata, and
// multicast to those that match, and they receive what is sent to their own.
//
//	c, err := client.Dial("127.0.0.1:8980")
//	...
//	defer c.Close()
//	result, err := c.Multicast(ctx, client.MulticastRequest{
//		Filter:  map[string]any{"room": "engineering", "battery": map[string]any{"$lt": 0.2}},
//		Payload: []byte("please charge"),
//	})
//	fmt.Println(result.Delivered, "of", result.TargetCount)
//
// A program that is to be reached calls [Client.Join] with a handler and leaves the rest to it: Join registers, keeps the
// lease, hands every message over, acknowledges it, and comes back by itself after an outage.
//
// # Replies and repeats
//
// A handler answers with [Message.Reply]; the sender finds the replies in its Result, target by target and counted by code,
// or takes them as they come with the request's Settled.
//
// A message can reach a program more than once: when its ack was lost, or came too late. Join drops such repeats and
// acknowledges them again, so that the handler gets each message that it takes once, within the window of [WithWindow]: that is
// what the delivery mode ExactlyOnce promises. A program that has restarted remembers nothing: a message whose ack was lost
// comes again.
//
// What an identity did not acknowledge is Pending where the namespace has a durability slot, and Delivered once the identity
// came for it: [Client.GetMulticast] tells.
//
// # Errors
//
// What the server refuses or cannot do comes back as the sentinels of this package, to be asked for with [errors.Is]:
// [ErrInvalid], [ErrNotFound], [ErrAlreadyExists], [ErrQuota], [ErrUnsupported] and [ErrUnavailable]; an ErrInvalid is an
// [InvalidError] that names the field, to be had with [errors.As]. A context that ended is [context.Canceled] or
// [context.DeadlineExceeded]. The gRPC status is kept as well: google.golang.org/grpc/status reads it from any of them.
// Calls do not wait for a server that is away: they return ErrUnavailable at once, while the connection is restored in
// the background, within about a second of the server's return.
//
// # Traces
//
// With [WithTracing] calls and handlers are OpenTelemetry spans, and one trace leads from who multicasts through the server to
// each recipient. The context that a handler is called with has the place in the trace in any case, see [Message.Context].
//
// # Metadata
//
// An [Identity] carries its metadata as it came over the wire, and decodes it when it is asked: [Identity.Lookup] for one value,
// [Identity.Metadata] for all of it, a new map with each call. So thousands of identities of which a program wants the names, or
// one field, cost little. What comes is checked when it arrives: malformed metadata is the call's error.
//
// # Numbers
//
// Metadata and filters may hold every kind of Go integer and float, and json.Number. They travel as IEEE 754 doubles, as
// in JSON: an integer that a double cannot hold exactly is refused with an InvalidError that points to it, never rounded;
// send such a number as a string. What comes back has one Go type for one value: int64 if the number is an integer,
// uint64 above the int64s, and float64 otherwise. So 5, 5.0 and uint8(5) all come back as int64(5). An integer that came into the
// registry by another way, and that a double cannot hold, comes back exactly in the metadata of identities that are found.
package client
