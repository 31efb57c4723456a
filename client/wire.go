package client

import (
	"encoding/binary"
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Identities are read from the wire by hand, because a generated decoder makes a message of every value in their metadata.
// What is read is what the generated one reads: fields may come in any order and more than once, those that are unknown or of
// another wire type are passed over, text is UTF-8. A fuzz test holds the two together.

var (
	errMalformed = errors.New("the message is not well-formed")
	errNotUTF8   = errors.New("the message has text that is not valid UTF-8")
	errTooDeep   = errors.New("the message has metadata that is nested too deeply")
)

// Tags are the number of a field and its wire type. These are protowire's numbers without a Go type.
const (
	varintType = 0
	doubleType = 1
	bytesType  = 2
)

// wireReader walks over the fields of a message, in the manner of a bufio.Scanner. It moves numbers and no strings: those are
// pointers, whose every move costs while garbage is collected.
type wireReader struct {
	message string
	at      int  // where the rest begins
	bad     bool // the message is not well-formed

	tag      uint64 // of the field
	number   uint64 // its value, if that is a varint or of 64 bits
	from, to int    // where its value is, if that has a length
}

// next reads a field. It is false at the end of the message, and where the message is not well-formed: see err.
func (r *wireReader) next() bool {
	if r.at == len(r.message) || r.bad {
		return false
	}
	r.tag = r.varint()
	if n := r.tag >> 3; n < uint64(protowire.MinValidNumber) || n > uint64(protowire.MaxValidNumber) {
		r.bad = true
	}
	if r.bad {
		return false
	}
	switch r.tag & 7 {
	case varintType:
		r.number = r.varint()
	case bytesType:
		n := r.varint()
		r.skip(n)
	case doubleType:
		if r.skip(8); !r.bad {
			r.number = binary.LittleEndian.Uint64([]byte(r.message[r.from:r.to]))
		}
	default:
		rest := []byte(r.message[r.at:])
		r.skip(uint64(protowire.ConsumeFieldValue(protowire.Number(r.tag>>3), protowire.Type(r.tag&7), rest)))
	}
	return !r.bad
}

// content is the value of a field that has a length.
func (r *wireReader) content() string { return r.message[r.from:r.to] }

// text is the value of a field that is a string.
func (r *wireReader) text() (string, error) {
	if s := r.content(); utf8.ValidString(s) {
		return s, nil
	}
	return "", errNotUTF8
}

// err tells whether all was well-formed that next has read.
func (r *wireReader) err() error {
	if r.bad {
		return errMalformed
	}
	return nil
}

func (r *wireReader) skip(n uint64) {
	if r.bad || n > uint64(len(r.message)-r.at) {
		r.bad = true
		return
	}
	r.from, r.to = r.at, r.at+int(n)
	r.at = r.to
}

func (r *wireReader) varint() uint64 {
	if r.at < len(r.message) && r.message[r.at] < 0x80 { // it nearly always has one byte
		r.at++
		return uint64(r.message[r.at-1])
	}
	var v uint64
	for i := range min(len(r.message)-r.at, binary.MaxVarintLen64) {
		c := r.message[r.at+i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			r.at += i + 1
			r.bad = r.bad || i == binary.MaxVarintLen64-1 && c > 1
			return v
		}
	}
	r.bad = true
	return 0
}

// wellFormed tells whether all fields of a message can be read: before it is put together with more of it.
func wellFormed(message string) bool {
	r := wireReader{message: message}
	for r.next() {
		continue
	}
	return !r.bad
}
