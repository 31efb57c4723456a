package client

import (
	"bytes"

	"google.golang.org/protobuf/encoding/protowire"
)

// The replies with identities have them, or what they are in, in their first field. A reply is cut into the contents of that
// field and everything else.

// firstTag is EnumerateResponse.identities, EnumerateStreamResponse.page, RegisterResponse.identity and WatchResponse.events.
const firstTag = protowire.Number(1)

// chunk bounds the text that several strings are parts of, and so what is kept in memory by one that somebody keeps.
const chunk = 16 << 10

// cutter finds the contents of the first field of a message.
type cutter struct {
	message  []byte
	at       int // where the rest of the message begins
	from, to int // where the content is

	text       string // a copy of a part of the message
	start, end int    // where that is
}

// next goes on to the next content. It takes a message that split has read.
func (c *cutter) next() bool {
	for c.at < len(c.message) {
		number, kind, tag := protowire.ConsumeTag(c.message[c.at:])
		size := protowire.ConsumeFieldValue(number, kind, c.message[c.at+tag:])
		c.from, c.to = c.at+tag, c.at+tag+size
		c.at = c.to
		if number == firstTag && kind == protowire.BytesType {
			_, prefix := protowire.ConsumeVarint(c.message[c.from:])
			c.from += prefix
			return true
		}
	}
	return false
}

// bytes is the content, as a part of the message.
func (c *cutter) bytes() []byte { return c.message[c.from:c.to:c.to] }

// string is a copy of the content.
func (c *cutter) string() string {
	if c.to > c.end {
		c.start, c.end = c.from, max(c.to, min(c.from+chunk, len(c.message)))
		c.text = string(c.message[c.start:c.end])
	}
	return c.text[c.from-c.start : c.to-c.start]
}

// split counts the contents of the first field, and returns the other fields.
func split(message []byte) (n int, others []byte, err error) {
	for rest := message; len(rest) > 0; {
		number, kind, tag := protowire.ConsumeTag(rest)
		if tag < 0 || number > protowire.MaxValidNumber {
			return 0, nil, errMalformed
		}
		size := protowire.ConsumeFieldValue(number, kind, rest[tag:])
		if size < 0 {
			return 0, nil, errMalformed
		}
		if number == firstTag && kind == protowire.BytesType {
			n++
		} else {
			others = append(others, rest[:tag+size]...)
		}
		rest = rest[tag+size:]
	}
	return n, others, nil
}

// joined is the contents of the first field put together: those of a message that came in parts. Each is a message itself.
func joined(message []byte) ([]byte, error) {
	n, _, err := split(message)
	if err != nil {
		return nil, err
	}
	c, parts := cutter{message: message}, make([][]byte, 0, n)
	for c.next() {
		parts = append(parts, c.bytes())
	}
	if n == 1 {
		return parts[0], nil
	}
	for _, part := range parts {
		if _, _, err := split(part); err != nil {
			return nil, err
		}
	}
	return bytes.Join(parts, nil), nil
}
