package multicastregistry

// maxUnacked bounds the messages of one subscriber that wait for its ack. Beyond it the oldest is forgotten, and its ack
// passed over: the sender sees no ack, a stored message is delivered again.
const maxUnacked = 1 << 16

// unacked remembers where the acks of a subscriber's messages go. Each operation takes constant time on average.
type unacked struct {
	addresses map[MessageName]ackAddress
	order     []arrival // oldest first; those that are acked are passed over, and removed now and then
	arrivals  uint64
}

// ackAddress is where the ack of a message goes: to its sender, to the durability slot, or to both when the same message
// came both ways. Both are empty for a message that is unknown.
type ackAddress struct {
	live, stored string
	arrival      uint64
	givenBack    bool // the sender was told that it will not be acked, though it still may
}

// arrival is the place of a message in the order.
type arrival struct {
	name   MessageName
	number uint64
}

func newUnacked() unacked { return unacked{addresses: make(map[MessageName]ackAddress)} }

// add remembers a message, and forgets the oldest one beyond the bound.
func (u *unacked) add(name MessageName, to string, stored bool) {
	address, known := u.addresses[name]
	if stored {
		address.stored = to
	} else {
		address.live, address.givenBack = to, false
	}
	if !known {
		u.arrivals++
		address.arrival = u.arrivals
		u.order = append(u.order, arrival{name, u.arrivals})
	}
	u.addresses[name] = address
	for len(u.addresses) > maxUnacked {
		if u.waits(u.order[0]) {
			delete(u.addresses, u.order[0].name)
		}
		u.order = u.order[1:]
	}
}

// take returns where the ack of a message goes, and forgets it.
func (u *unacked) take(name MessageName) ackAddress {
	address := u.addresses[name]
	delete(u.addresses, name)
	if len(u.order) > 2*len(u.addresses)+1024 {
		var still []arrival
		for _, a := range u.order {
			if u.waits(a) {
				still = append(still, a)
			}
		}
		u.order = still
	}
	return address
}

// waits tells whether an arrival is still the one that its name stands for.
func (u *unacked) waits(a arrival) bool {
	address, known := u.addresses[a.name]
	return known && address.arrival == a.number
}

// giveBack returns, as acks that are none, the messages that came live, were not acked, and were not given back before.
func (u *unacked) giveBack(which func(MessageName) bool) (acks []Ack) {
	for name, address := range u.addresses {
		if address.live != "" && !address.givenBack && which(name) {
			acks = append(acks, Ack{To: address.live, Identity: name.Identity, ID: name.ID, Gone: true})
			address.givenBack = true
			u.addresses[name] = address
		}
	}
	return acks
}
