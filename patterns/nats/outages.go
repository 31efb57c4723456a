package nats

import (
	"encoding/json"
	"fmt"
	"time"
)

// How an outage ends no lease. An outage is a time when no proxy reached the servers: nobody could renew a lease then, or not
// for sure. Whoever finds that there was one (see keeper) adds it to the record of outages, which is a key of the bucket like
// those of identities, with a revision of its own. From then on a lease that had not ended when it began lasts for at least its
// TTL after it ended. Records of identities are not rewritten for that: everyone who reads one counts the outages in.
//
// Outages are counted in one after the other, in their order. So they may follow each other faster than any TTL: a lease that
// lasts only because of the first had not ended when the second began, and is prolonged again; one that had ended by then,
// though later than the first began, is not. To keep one outage, from the first's begin to the last's end, would wake the dead.
// Only when there are too many of them are the two oldest taken for one: that ends no lease either.
//
// A begin is known to markEvery: a lease that ended in the last moment before an outage may be found live after it.

// maxOutages is how many outages are kept apart.
const maxOutages = 32

// outage is a time when nobody reached the servers, in microseconds of the Unix epoch.
type outage struct {
	Since int64 `json:"since"`
	Until int64 `json:"until"`
}

// outages are in order, oldest first. They are never changed in place.
type outages []outage

// end returns when a lease ends that would end at an instant without outages, in microseconds of the Unix epoch; 0: never. The
// TTL is in milliseconds.
func (o outages) end(expires, ttl int64) int64 {
	if expires == 0 {
		return 0
	}
	for _, one := range o {
		if expires > one.Since {
			expires = max(expires, one.Until+ttl*1000)
		}
	}
	return expires
}

// with returns the outages and one more, which began when the last one had ended, or later.
func (o outages) with(one outage) outages {
	n := len(o)
	if n > 0 && o[n-1].Until == one.Since {
		n--
		one.Since = o[n].Since
	}
	all := make(outages, 0, n+1)
	all = append(append(all, o[:n]...), one)
	for len(all) > maxOutages {
		all[1].Since = all[0].Since
		all = all[1:]
	}
	return all
}

// last returns the latest outage, or none.
func (o outages) last() outage {
	if len(o) == 0 {
		return outage{}
	}
	return o[len(o)-1]
}

func (o outages) encode() []byte {
	data, err := json.Marshal(o)
	if err != nil {
		panic(err) // numbers have a form in JSON
	}
	return data
}

// parseOutages is the inverse of encode. A key that somebody has deleted has none.
func parseOutages(data []byte) (o outages, err error) {
	if len(data) == 0 {
		return nil, nil
	}
	if err = json.Unmarshal(data, &o); err != nil {
		return nil, fmt.Errorf("the record of outages: %w", err)
	}
	return o, nil
}

func (o outage) span() (since, until time.Time) { return instant(o.Since), instant(o.Until) }
