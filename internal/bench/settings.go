package bench

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// setting is a word on what was done.
type setting struct{ Name, Value string }

// mostNames is how many servers are named in a line.
const mostNames = 4

// settings tells what was done, in few lines.
func (r *Result) settings() []setting {
	p := &r.Plan
	run := []string{r.took() + " from " + r.Started.UTC().Format(time.DateTime) + " UTC"}
	if r.Started.IsZero() {
		run = []string{r.took()}
	}
	if r.Version != "" {
		run = append(run, "prism "+plain(r.Version))
	}
	data := []string{
		counted(uint64(p.Identities), "identity", "identities") + " in groups of " + thousands(uint64(p.Targets)), "TTL " + span(p.TTL),
	}
	if p.sends() {
		data = append(data, counted(uint64(p.Streams), "stream", "streams"), plain(string(p.Delivery))+" delivery of "+
			size(uint64(p.Payload))+" each")
	}
	if p.Strong {
		data = append(data, "strong reads")
	}
	return []setting{
		{"run", strings.Join(run, ", ")}, {"load", r.load()}, {"data", strings.Join(data, ", ")}, {"servers", r.where()},
	}
}

// load tells what became due, and when.
func (r *Result) load() string {
	p := &r.Plan
	rate := "as fast as " + counted(uint64(p.Concurrency), "worker goes", "workers go")
	switch {
	case p.RampTo > 0 && p.Rate > 0:
		rate = perSecond(p.Rate) + " to " + perSecond(p.RampTo)
	case p.Rate > 0:
		rate = perSecond(p.Rate)
	}
	parts := []string{rate + " for " + span(p.Duration) + ": " + p.mix()}
	if p.Rate == 0 && p.Dedicated {
		parts = append(parts, "each worker at one operation")
	}
	if p.Rate > 0 {
		if p.Poisson {
			parts = append(parts, "at random times")
		}
		parts = append(parts, "at most "+thousands(uint64(p.Concurrency))+" at once")
	}
	if p.Heartbeats > 0 {
		parts = append(parts, "and beside it "+perSecond(p.Heartbeats)+" heartbeat")
	}
	return strings.Join(parts, ", ")
}

// mix writes the shares in percent.
func (p *Plan) mix() string {
	total := 0.0
	for _, weight := range p.Shares {
		total += weight
	}
	order := Operations()
	names := slices.SortedFunc(maps.Keys(p.Shares), func(a, b string) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a), slices.Index(order, b)), strings.Compare(a, b))
	})
	var parts []string
	for _, name := range names {
		if p.Shares[name] > 0 {
			parts = append(parts, share(p.Shares[name], total)+" "+plain(name))
		}
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, " + ")
}

// where names the servers.
func (r *Result) where() string {
	var names []string
	for _, server := range r.Servers[:min(len(r.Servers), mostNames)] {
		names = append(names, plain(server))
	}
	where := strings.Join(names, ", ")
	if more := len(r.Servers) - len(names); more > 0 {
		where += " and " + counted(uint64(more), "other", "others")
	}
	if r.Embedded {
		where = strings.TrimPrefix(where+", in the process of the load", ", ")
	}
	if n := r.Plan.Connections; n > 1 && where != "" {
		where += ", " + thousands(uint64(n)) + " connections to each"
	}
	return cmp.Or(where, notMeasured)
}
