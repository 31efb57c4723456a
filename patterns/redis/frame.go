package redis

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// frameVersion is the first byte of a frame. No UTF-8 text begins with it, so that text from other programs is no frame.
	frameVersion = 0xA1
	// frameOnce is the flag of a message that is Once, frameTraced of one with a TraceParent. Other flags mean nothing yet, and
	// are passed over.
	frameOnce   = 1
	frameTraced = 2
)

// encodeFrame returns what is published, and stored, for a message:
//
//	version byte | flags byte | SentAt in ms since 1970, varint | ID | ContentType | AckTo | TraceParent | payload to the end
//
// ID, ContentType, AckTo and TraceParent have their length in front, as uvarint; TraceParent is there with its flag only. Topic
// and identity are the channel's.
func encodeFrame(message *multicastregistry.Message) []byte {
	size := 2 + 5*binary.MaxVarintLen64 + len(message.ID) + len(message.ContentType) + len(message.AckTo) +
		len(message.TraceParent) + len(message.Payload)
	flags := byte(0)
	if message.Once {
		flags |= frameOnce
	}
	if message.TraceParent != "" {
		flags |= frameTraced
	}
	frame := append(make([]byte, 0, size), frameVersion, flags)
	frame = binary.AppendVarint(frame, message.SentAt.UnixMilli())
	for _, text := range []string{message.ID, message.ContentType, message.AckTo} {
		frame = binary.AppendUvarint(frame, uint64(len(text)))
		frame = append(frame, text...)
	}
	if message.TraceParent != "" {
		frame = binary.AppendUvarint(frame, uint64(len(message.TraceParent)))
		frame = append(frame, message.TraceParent...)
	}
	return append(frame, message.Payload...)
}

// decodeFrame is the inverse of encodeFrame. Anyone can publish anything: what is no frame comes as the payload of a message
// with an id of its own, sent now, that wants no ack. So `redis-cli publish prism.presence.user-1 hello` works.
func decodeFrame(frame string) multicastregistry.Message {
	message, ok := parseFrame(frame)
	if !ok {
		return multicastregistry.Message{
			ID: rand.Text(), Payload: []byte(frame), SentAt: time.UnixMilli(time.Now().UnixMilli()),
		}
	}
	return message
}

func parseFrame(frame string) (message multicastregistry.Message, ok bool) {
	if len(frame) < 2 || frame[0] != frameVersion {
		return message, false
	}
	zigzag, rest, ok := cutUvarint(frame[2:])
	if !ok {
		return message, false
	}
	message.Once = frame[1]&frameOnce != 0
	message.SentAt = time.UnixMilli(int64(zigzag>>1) ^ -int64(zigzag&1))
	texts := [...]*string{&message.ID, &message.ContentType, &message.AckTo, &message.TraceParent}
	present := texts[:3]
	if frame[1]&frameTraced != 0 {
		present = texts[:]
	}
	for _, text := range present {
		var size uint64
		if size, rest, ok = cutUvarint(rest); !ok || size > uint64(len(rest)) {
			return multicastregistry.Message{}, false
		}
		*text, rest = rest[:size], rest[size:]
	}
	if message.ID == "" {
		return multicastregistry.Message{}, false // every message has one
	}
	message.TraceParent = multicastregistry.TraceParent(message.TraceParent)
	message.Payload = []byte(rest)
	return message, true
}

// cutUvarint reads a uvarint off the front. It is not ok when there is none, or one beyond 64 bits.
func cutUvarint(s string) (value uint64, rest string, ok bool) {
	for i := 0; i < len(s) && i < binary.MaxVarintLen64; i++ {
		b := s[i]
		if i == binary.MaxVarintLen64-1 && b > 1 {
			return 0, "", false
		}
		value |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return value, s[i+1:], true
		}
	}
	return 0, "", false
}
