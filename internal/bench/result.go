package bench

import "time"

// Result is what a run has measured. Latencies are in milliseconds and count from when an operation was due.
type Result struct {
	// Plan is what was done, with all defaults.
	Plan Plan `json:"plan"`
	// Servers are the addresses, in the order in which operations went to them in turn.
	Servers []string `json:"servers"`
	// Embedded tells that the server ran in the process of the load.
	Embedded bool `json:"embedded,omitempty"`
	// Version is that of this program.
	Version string `json:"version"`
	// Started is when the load began.
	Started time.Time `json:"started"`
	// Seconds is how long the load took, up to the end of the last operation.
	Seconds float64 `json:"seconds"`
	// Operations holds what each kind of operation took; the arrival of messages is one of them.
	Operations []Measured `json:"operations"`
	// Series holds a sample of each operation for each second.
	Series []Sample `json:"series"`
	// Late is by how much this program itself was behind: from when an operation was due until it was given to a worker.
	Late Latency `json:"late"`
	// Setup tells how long the stages before the load took.
	Setup []Stage `json:"setup"`
	// Delivery is the reckoning of all messages; nil when there were none.
	Delivery *Delivery `json:"delivery,omitempty"`
	// Processes are the servers, what they stand on and this program as they used the machine during the load, as far as they run
	// on it.
	Processes []Process `json:"processes,omitempty"`
	// Checks are the plan's limits and what was measured.
	Checks []Check `json:"checks,omitempty"`
}

// Measured is what one kind of operation took.
type Measured struct {
	Operation string `json:"operation"`
	// Offered is how many became due, Done how many were answered, Failed how many were not or wrongly.
	Offered uint64 `json:"offered"`
	Done    uint64 `json:"done"`
	Failed  uint64 `json:"failed"`
	// Rate is how many were answered in a second.
	Rate float64 `json:"rate"`
	// Latency counts from when an operation was due, Service from when it began.
	Latency Latency `json:"latency_ms"`
	Service Latency `json:"service_ms"`
	// Errors counts the failed ones by gRPC's name of the status code, or WRONG_ANSWER.
	Errors map[string]uint64 `json:"errors,omitempty"`
	// Percentiles is the distribution of Latency, in ascending order.
	Percentiles []Percentile `json:"percentiles,omitempty"`
}

// Latency summarizes times, in milliseconds.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

// Percentile is a point of a distribution: what share of the values, in percent, is not above so many milliseconds.
type Percentile struct {
	Percentile   float64 `json:"percentile"`
	Milliseconds float64 `json:"ms"`
}

// Sample is one operation in one second. Offered, Done and Failed are numbers a second.
type Sample struct {
	Operation string  `json:"operation"`
	At        float64 `json:"at"` // seconds from the start of the load to the end of the sample
	Offered   float64 `json:"offered"`
	Done      float64 `json:"done"`
	Failed    float64 `json:"failed"`
	P50       float64 `json:"p50"`
	P99       float64 `json:"p99"`
	Max       float64 `json:"max"`
}

// Stage is something that was done before the load.
type Stage struct {
	Name    string  `json:"name"`
	Count   int     `json:"count"`
	Seconds float64 `json:"seconds"`
}

// Delivery holds what multicasts reported against what their subscribers received.
type Delivery struct {
	// Multicasts is how many were answered, Unanswered how many were not: what those report is unknown.
	Multicasts uint64 `json:"multicasts"`
	Unanswered uint64 `json:"unanswered"`
	// Targets is how many identities the answered ones had: Delivered, Pending, Failed and TimedOut add up to it.
	Targets   uint64 `json:"targets"`
	Delivered uint64 `json:"delivered"`
	Pending   uint64 `json:"pending"`
	Failed    uint64 `json:"failed"`
	TimedOut  uint64 `json:"timed_out"`
	// Reasons counts the targets that were not delivered.
	Reasons map[string]uint64 `json:"reasons,omitempty"`

	// Received is how many different messages arrived, Repeats how many arrived again.
	Received uint64 `json:"received"`
	Repeats  uint64 `json:"repeats"`
	// Dropped is how many the server says that it dropped because a subscriber read too slowly.
	Dropped uint64 `json:"dropped"`
	// Reconnects is how often a subscriber's stream had to be opened anew.
	Reconnects uint64 `json:"reconnects"`
	// Lost is how many messages were accepted at-most-once and did not arrive, which that mode allows.
	Lost uint64 `json:"lost"`

	// What must not be. WrongCount: reports that do not add up, or not to the size of the group. Missing: reported as
	// delivered and acknowledged, and never received. Contradicted: reported as failed, yet received. Uninvited: received by
	// somebody it was not for. Repeated: received again though that was not allowed. Corrupted: of another content than was sent.
	WrongCount   uint64 `json:"wrong_count"`
	Missing      uint64 `json:"missing"`
	Contradicted uint64 `json:"contradicted"`
	Uninvited    uint64 `json:"uninvited"`
	Repeated     uint64 `json:"repeated"`
	Corrupted    uint64 `json:"corrupted"`
}

// Violations is how much there was of what must not be.
func (d *Delivery) Violations() uint64 {
	return d.WrongCount + d.Missing + d.Contradicted + d.Uninvited + d.Repeated + d.Corrupted
}

// Accounted is the share of targets, in percent, whose outcome is known and true.
func (d *Delivery) Accounted() float64 {
	if d.Targets == 0 {
		return 100
	}
	known := float64(d.Delivered + d.Pending + d.Failed + d.TimedOut)
	return 100 * max(0, known-float64(d.Violations())) / float64(d.Targets)
}

// Process is how much of the machine a process used during the load.
type Process struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// CPU is in percent of one core.
	CPU float64 `json:"cpu_percent"`
	// Memory is what is resident at the end, in bytes.
	Memory uint64 `json:"memory_bytes"`
}

// Check is a limit and what was measured.
type Check struct {
	Limit

	Measured float64 `json:"measured"`
	OK       bool    `json:"ok"`
}

// OK tells whether nothing happened that must not, all limits hold, and every operation was answered.
func (r *Result) OK() bool {
	for _, c := range r.Checks {
		if !c.OK {
			return false
		}
	}
	for _, m := range r.Operations {
		if m.Failed > 0 {
			return false
		}
	}
	return r.Delivery == nil || r.Delivery.Violations() == 0
}
