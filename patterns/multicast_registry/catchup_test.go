package multicastregistry

import (
	"strings"
	"testing"
)

func messagesOf(text string) (out []Message) {
	for word := range strings.FieldsSeq(text) {
		out = append(out, Message{Topic: word[:1], ID: word, Payload: []byte(word)})
	}
	return out
}

func idsOf(messages []Message) string {
	var ids []string
	for _, m := range messages {
		ids = append(ids, m.ID)
	}
	return strings.Join(ids, " ")
}

func TestCatchup(t *testing.T) {
	t.Parallel()
	var c catchup
	held := func(in, want string) {
		t.Helper()
		if pass, dropped := c.hold(messagesOf(in)); idsOf(pass) != want || dropped != 0 {
			t.Errorf("%s: passed %q, dropped %d", in, idsOf(pass), dropped)
		}
	}
	released := func(want string, all bool, topics ...string) {
		t.Helper()
		if got := idsOf(c.release(topics, all)); got != want {
			t.Errorf("released %q, want %q", got, want)
		}
	}
	held("a1", "a1")
	c.begin([]string{"a", "b"})
	held("a2 c1 b1 a3", "c1")
	released("a2 a3", false, "a")
	held("a4 b2", "a4")
	c.begin([]string{"a", "b"}) // attached already
	held("a5 b3", "a5")
	released("b1 b2 b3", true)
	held("b4", "b4")
	c.forget([]string{"a"})
	c.begin([]string{"a"})
	held("a6", "")
	c.forget([]string{"a"})
	released("", true)
	if c.bytes != 0 || len(c.behind) != 0 {
		t.Errorf("%d bytes in %d topics are left", c.bytes, len(c.behind))
	}
}

func TestCatchupIsBounded(t *testing.T) {
	t.Parallel()
	var c catchup
	c.begin([]string{"a", "b"})
	if _, dropped := c.hold(make([]Message, 10)); dropped != 0 { // of no topic
		t.Error(dropped)
	}
	if _, dropped := c.hold(messagesOf(strings.Repeat("a ", maxHeld+3))); dropped != 3 {
		t.Errorf("dropped %d", dropped)
	}
	big := Message{Topic: "b", Payload: make([]byte, maxHeldBytes/2)}
	if _, dropped := c.hold([]Message{big, big, big}); dropped != 2 {
		t.Errorf("dropped %d", dropped)
	}
	if got := c.release(nil, true); len(got) != maxHeld+1 || c.bytes != 0 {
		t.Errorf("%d messages, %d bytes left", len(got), c.bytes)
	}
}
