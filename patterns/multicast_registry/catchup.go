package multicastregistry

import (
	"sync"
	"time"
)

const (
	// maxHeld and maxHeldBytes bound the live messages of one identity, and the payloads of all, that wait while stored ones
	// catch up; what does not fit is dropped and counted.
	maxHeld      = 1024
	maxHeldBytes = 64 << 20
	// catchupPatience is how long a durability slot may be silent before live messages wait no longer.
	catchupPatience = 5 * time.Second
)

// catchup holds live messages back while stored ones of the same topic are still to come. All methods may be called
// concurrently.
type catchup struct {
	mu       sync.Mutex
	attached map[string]struct{}  // topics
	behind   map[string][]Message // topics that are catching up, and what came live for them since
	bytes    int                  // of the payloads in behind
}

// begin has topics catch up, unless they are attached already.
func (c *catchup) begin(topics []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attached == nil {
		c.attached, c.behind = make(map[string]struct{}), make(map[string][]Message)
	}
	for _, topic := range topics {
		if _, known := c.attached[topic]; !known {
			c.attached[topic] = struct{}{}
			c.behind[topic] = nil
		}
	}
}

// forget ends topics, and with them what waits.
func (c *catchup) forget(topics []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, topic := range topics {
		c.take(topic)
		delete(c.attached, topic)
	}
}

func (c *catchup) take(topic string) []Message {
	held := c.behind[topic]
	for i := range held {
		c.bytes -= len(held[i].Payload)
	}
	delete(c.behind, topic)
	return held
}

// hold keeps the messages of topics that are catching up, and returns the others, and how many did not fit.
func (c *catchup) hold(messages []Message) (pass []Message, dropped uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.behind) == 0 {
		return messages, 0
	}
	pass = make([]Message, 0, len(messages))
	for _, m := range messages {
		held, behind := c.behind[m.Topic]
		switch {
		case !behind:
			pass = append(pass, m)
		case len(held) >= maxHeld || c.bytes+len(m.Payload) > maxHeldBytes:
			dropped++
		default:
			c.behind[m.Topic] = append(held, m)
			c.bytes += len(m.Payload)
		}
	}
	return pass, dropped
}

// release returns what waited for topics that have caught up; all of them if so asked.
func (c *catchup) release(topics []string, all bool) (messages []Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, topic := range topics {
		messages = append(messages, c.take(topic)...)
	}
	if all {
		for topic := range c.behind {
			messages = append(messages, c.take(topic)...)
		}
	}
	return messages
}
