package acceptance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// history is all that is known of a soak: what the senders were told and what the handlers did.
type history struct {
	start time.Time

	mu          sync.Mutex
	multicasts  []*multicast
	messages    map[client.MessageName]*fate
	outages     []outage
	redelivered int
}

// multicast is what a sender was told.
type multicast struct {
	id           string
	mode         client.DeliveryMode
	targets      int // by Began
	through      int
	began, ended time.Duration
	result       *client.Result
	err          error
	later        *client.MulticastRecord
}

// fate is what the handlers did with one message.
type fate struct {
	events   []string
	finished map[int64]int // by membership
}

// outage is a time in which a broker was away.
type outage struct {
	name     string
	from, to time.Duration
}

func newHistory(start time.Time) *history {
	return &history{start: start, messages: make(map[client.MessageName]*fate)}
}

func (h *history) sent(m *multicast) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.multicasts = append(h.multicasts, m)
}

func (h *history) away(name string, away bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Since(h.start)
	if away {
		h.outages = append(h.outages, outage{name, now, now})
		return
	}
	h.outages[len(h.outages)-1].to = now
}

// note adds an event to a message. The caller holds h.mu.
func (h *history) note(m client.Message, membership int64, what string) *fate {
	f := h.messages[m.Name()]
	if f == nil {
		f = &fate{finished: make(map[int64]int)}
		h.messages[m.Name()] = f
	}
	f.events = append(f.events, fmt.Sprintf("%.3fs %s %d", time.Since(h.start).Seconds(), what, membership))
	return f
}

func (h *history) handed(m client.Message, membership int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	what := "handed to membership"
	if m.Redelivered {
		what = "handed again to membership"
		h.redelivered++
	}
	h.note(m, membership, what)
}

func (h *history) refused(m client.Message, membership int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note(m, membership, "refused by membership")
}

func (h *history) finished(m client.Message, membership int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note(m, membership, "finished by membership").finished[membership]++
}

// count returns how often a message was finished, and how often at most by one membership.
func (h *history) count(name client.MessageName) (all, one int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.messages[name]; f != nil {
		for _, n := range f.finished {
			all, one = all+n, max(one, n)
		}
	}
	return all, one
}

// know tells what is known of a message.
func (h *history) know(m *multicast, target client.Target) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "message %s of %s, %s through proxy %d from %.3fs to %.3fs, reported %s (%d attempts, %v): %v",
		m.id, target.Identity, m.mode, m.through, m.began.Seconds(), m.ended.Seconds(), told(target), target.Attempts,
		target.Latency, target.Err)
	if m.later != nil {
		for _, now := range m.later.Result.Targets {
			if now.Identity == target.Identity {
				fmt.Fprintf(&b, "; by now %s: %v", told(now), now.Err)
			}
		}
	}
	if f := h.messages[client.MessageName{Identity: target.Identity, ID: m.id}]; f != nil {
		fmt.Fprintf(&b, "; %s", strings.Join(f.events, ", "))
	} else {
		b.WriteString("; no handler has seen it")
	}
	fmt.Fprintf(&b, "; outages %v", h.outages)
	return b.String()
}

func (o outage) String() string {
	return fmt.Sprintf("%s %.3fs-%.3fs", o.name, o.from.Seconds(), o.to.Seconds())
}

// disturbed tells whether a broker was away in a multicast's time or shortly before.
func (h *history) disturbed(m *multicast) bool {
	const before = 3 * time.Second // a connection may take as long to be restored
	for _, o := range h.outages {
		if o.from <= m.ended && o.to+before >= m.began {
			return true
		}
	}
	return false
}

// check waits until everything that was stored has arrived, and checks every multicast.
func (s *soak) check() {
	t, h := s.t, s.log
	t.Helper()
	unrecorded := s.settle()
	var total client.Result
	refused := 0
	failures := 0
	for _, m := range h.multicasts {
		if m.err != nil {
			refused++
			told := errors.Is(m.err, client.ErrUnavailable) || errors.Is(m.err, context.DeadlineExceeded)
			if m.id != "" || !told || !h.disturbed(m) {
				t.Errorf("multicast %q through proxy %d from %v to %v: %v; outages %v", m.id, m.through, m.began, m.ended, m.err, h.outages)
			}
			continue
		}
		for _, problem := range s.problems(m) {
			if failures++; failures <= 20 {
				t.Errorf("seed %d: %s", s.seed, problem)
			}
		}
		r := m.result
		total.TargetCount += r.TargetCount
		total.Delivered += r.Delivered
		total.Pending += r.Pending
		total.Failed += r.Failed
		total.TimedOut += r.TimedOut
	}
	if failures > 20 {
		t.Errorf("seed %d: %d problems in all", s.seed, failures)
	}
	t.Logf("seed %d: %d multicasts (%d refused), %d targets: %d delivered, %d pending, %d failed, %d timeouts; "+
		"%d redeliveries, %d memberships, %d restarts of brokers, %d unrecorded", s.seed, len(h.multicasts), refused, total.TargetCount,
		total.Delivered, total.Pending, total.Failed, total.TimedOut, h.redelivered, s.memberships.Load(), s.restarts, unrecorded)
	if total.Delivered == 0 || total.Pending == 0 || h.redelivered == 0 || len(s.brokers) > 0 && s.restarts < len(s.brokers) {
		t.Error("that was no soak")
	}
}

// settle waits until everything that was stored has been handled, and asks what has become of every multicast until none of its
// targets is pending. It returns how many multicasts have no record, because the durability backend was away when they returned.
func (s *soak) settle() (unrecorded int) {
	t := s.t
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for _, m := range s.log.multicasts {
		if m.err != nil || m.mode == client.AtMostOnce {
			continue
		}
		for !s.arrived(m) && time.Now().Before(deadline) {
			<-time.After(50 * time.Millisecond)
		}
		for p := s.proxies[(m.through+1)%len(s.proxies)]; ; {
			record, err := p.GetMulticast(t.Context(), m.id)
			missing := errors.Is(err, client.ErrNotFound) || err == nil && record.State == client.Running
			if missing && s.log.disturbed(m) {
				unrecorded++
				break
			}
			m.later = record
			if err == nil && !missing && record.Result.Pending == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("seed %d: multicast %s through proxy %d from %v to %v: by now %v, %+v; outages %v",
					s.seed, m.id, m.through, m.began, m.ended, err, record, s.log.outages)
				break
			}
			<-time.After(50 * time.Millisecond)
		}
	}
	return unrecorded
}

// arrived tells whether what was stored of a multicast was handled.
func (s *soak) arrived(m *multicast) bool {
	for _, target := range m.result.Targets {
		if target.Status == client.Pending {
			if all, _ := s.log.count(client.MessageName{Identity: target.Identity, ID: m.id}); all == 0 {
				return false
			}
		}
	}
	return true
}

// problems returns what is wrong with a multicast.
func (s *soak) problems(m *multicast) (problems []string) {
	h, r := s.log, m.result
	if sum := r.Delivered + r.Pending + r.Failed + r.TimedOut; sum != r.TargetCount || len(r.Targets) != r.TargetCount || m.targets != sum {
		problems = append(problems, fmt.Sprintf("multicast %s: %d targets, %d are listed, the counts add up to %d", m.id, r.TargetCount,
			len(r.Targets), sum))
	}
	later := make(map[string]client.Target)
	if m.later != nil {
		if now := m.later.Result; now.Delivered+now.Pending+now.Failed+now.TimedOut != r.TargetCount {
			problems = append(problems, fmt.Sprintf("multicast %s: of %d targets are kept %+v", m.id, r.TargetCount, now))
		}
		for _, target := range m.later.Result.Targets {
			later[target.Identity] = target
		}
	}
	counted := make(map[client.Status]int)
	for _, target := range r.Targets {
		counted[target.Status]++
		all, one := h.count(client.MessageName{Identity: target.Identity, ID: m.id})
		now, kept := later[target.Identity]
		problem := ""
		switch {
		case m.mode == client.AtMostOnce:
			if all > 1 {
				problem = "handled more than once, at most once"
			}
		case one > 1:
			problem = "handled twice by one membership"
		case target.Status == client.Delivered && all == 0:
			problem = "reported as delivered, and nobody has handled it"
		case target.Status == client.Pending && all == 0:
			problem = "reported as pending, and lost"
		case target.Status == client.Pending && kept && now.Status != client.Delivered:
			problem = "pending, and not delivered in the end"
		case kept && now.Status == client.Delivered && all == 0:
			problem = "delivered in the end, and nobody has handled it"
		}
		if problem != "" {
			problems = append(problems, problem+": "+h.know(m, target))
		}
	}
	if counted[client.Delivered] != r.Delivered || counted[client.Pending] != r.Pending || counted[client.Failed] != r.Failed ||
		counted[client.Timeout] != r.TimedOut {
		problems = append(problems, fmt.Sprintf("multicast %s: it counts %+v and lists %v", m.id, r, counted))
	}
	return problems
}
