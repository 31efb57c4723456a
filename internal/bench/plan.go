package bench

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// Operations that a load consists of.
const (
	Register  = "register"  // register a new identity
	Enumerate = "enumerate" // find the identities of one group, and check that they are found
	Multicast = "multicast" // send to the identities of one group
	Heartbeat = "heartbeat" // renew one lease
	Attach    = "subscribe" // attach to an identity, send it a message, detach
)

// Arrival of a message at its subscriber: not an operation, but measured beside them.
const Arrival = "message"

// Operations lists the operations of a load.
func Operations() []string { return []string{Register, Enumerate, Multicast, Heartbeat, Attach} }

// Plan is what to do. The zero value of a field is its default where one is named.
type Plan struct {
	// Name is what the result is called.
	Name string `json:"name"`
	// Shares are the operations by their weight; they need not add up to anything.
	Shares map[string]float64 `json:"shares"`
	// Rate is how many operations are due in a second. 0: each worker begins one when the one before has ended.
	Rate float64 `json:"rate"`
	// RampTo, when it is not 0, is the rate at the end: it changes evenly from Rate on.
	RampTo float64 `json:"ramp_to,omitempty"`
	// Poisson makes the times between arrivals random, with the rate as their mean, instead of all equal.
	Poisson bool `json:"poisson,omitempty"`
	// Heartbeats is the rate of a second, steady load of heartbeats beside the first.
	Heartbeats float64 `json:"heartbeats,omitempty"`
	// Duration is for how long operations become due. Default: 10 s.
	Duration time.Duration `json:"duration"`
	// Concurrency is the most operations at once. Default: 64; with a rate, 1,024.
	Concurrency int `json:"concurrency"`
	// Dedicated has each worker keep to one operation, when there is no rate: as many workers as the operation's share says.
	Dedicated bool `json:"dedicated,omitempty"`
	// Connections is how many to each server. Default: 1.
	Connections int `json:"connections"`

	// Identities is how many are registered before the load. Default: 1,000.
	Identities int `json:"identities"`
	// Targets is how many identities a group has: those that a multicast reaches, and an enumerate finds. Default: 100.
	Targets int `json:"targets"`
	// TTL is that of all identities. Default: an hour.
	TTL time.Duration `json:"ttl"`
	// Payload is the size of a message in bytes. Default: 64, which is the least.
	Payload int `json:"payload"`
	// Delivery is how much a multicast promises. Default: at-least-once.
	Delivery client.DeliveryMode `json:"delivery"`
	// Streams is how many streams the subscribers have between them. Default: 4.
	Streams int `json:"streams"`
	// Strong asks for answers that reflect all that was written before the call.
	Strong bool `json:"strong,omitempty"`
	// Timeout is the longest wait for one operation. Default: 10 s.
	Timeout time.Duration `json:"timeout"`
	// Keep leaves the identities registered.
	Keep bool `json:"keep,omitempty"`
	// Limits are what has to hold in the end.
	Limits []Limit `json:"limits,omitempty"`
}

// Limit is an upper bound of a percentile.
type Limit struct {
	// Operation is the one that is meant.
	Operation string `json:"operation"`
	// Percentile is between 0 and 100; 100 means the maximum.
	Percentile float64 `json:"percentile"`
	// Milliseconds is the bound.
	Milliseconds float64 `json:"milliseconds"`
}

// minPayload holds what a message is checked by.
const minPayload = 64

// withDefaults completes a plan.
func (p Plan) withDefaults() Plan {
	setDefault(&p.Duration, 10*time.Second)
	if p.Rate > 0 {
		setDefault(&p.Concurrency, 1024)
	}
	setDefault(&p.Concurrency, 64)
	setDefault(&p.Connections, 1)
	setDefault(&p.Identities, 1000)
	setDefault(&p.Targets, 100)
	setDefault(&p.TTL, time.Hour)
	setDefault(&p.Payload, minPayload)
	setDefault(&p.Delivery, client.AtLeastOnce)
	setDefault(&p.Streams, 4)
	setDefault(&p.Timeout, 10*time.Second)
	p.Targets = min(p.Targets, p.Identities)
	return p
}

func setDefault[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

// Validate tells what is wrong with a plan.
func (p Plan) Validate() error {
	known := Operations()
	total := 0.0
	for name, share := range p.Shares {
		if !strings.Contains(" "+strings.Join(known, " ")+" ", " "+name+" ") {
			return fmt.Errorf("%q is no operation; there are %s", name, strings.Join(known, ", "))
		}
		if share < 0 || math.IsInf(share, 0) || math.IsNaN(share) {
			return fmt.Errorf("the share of %s must be 0 or more", name)
		}
		total += share
	}
	if total == 0 {
		return errors.New("no operation has a share")
	}
	for name, v := range map[string]float64{
		"rate": p.Rate, "end of the ramp": p.RampTo, "rate of heartbeats": p.Heartbeats, "duration": float64(p.Duration),
		"concurrency": float64(p.Concurrency), "number of connections": float64(p.Connections),
		"number of identities": float64(p.Identities), "number of targets": float64(p.Targets), "TTL": float64(p.TTL),
		"number of streams": float64(p.Streams), "timeout": float64(p.Timeout),
	} {
		if v < 0 || math.IsInf(v, 0) || math.IsNaN(v) {
			return fmt.Errorf("the %s must not be negative", name)
		}
	}
	if p.RampTo > 0 && p.Rate == 0 {
		return errors.New("a ramp begins at a rate above 0")
	}
	if max(p.Rate, p.RampTo, p.Heartbeats) > mostRate {
		return fmt.Errorf("a rate is at most %d a second", int(mostRate))
	}
	if p.Payload != 0 && p.Payload < minPayload {
		return fmt.Errorf("a payload has at least %d bytes, which are what it is checked by", minPayload)
	}
	return nil
}

// mostRate is the highest rate, in operations a second.
const mostRate = 1e6

// sends tells whether there are messages, and so subscribers.
func (p *Plan) sends() bool { return p.Shares[Multicast] > 0 }
