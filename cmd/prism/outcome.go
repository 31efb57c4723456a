package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prism-data-layer/prism/client"
)

// replies prints the replies of a multicast as they come, each target's once.
type replies struct {
	p       *program
	on      bool
	printed map[string]bool // by identity
	failed  error           // nobody reads what is printed; the multicast goes on all the same
}

// replyOut is a reply for machines.
type replyOut struct {
	Identity string `json:"identity"`
	bodyOut

	LatencyMS float64 `json:"latency_ms"`
}

// bodyOut is what came with an ack.
type bodyOut struct {
	ReplyCode   *uint32 `json:"reply_code,omitempty"`
	Reply       string  `json:"reply,omitempty"`
	ReplyBase64 []byte  `json:"reply_base64,omitempty"`
}

func bodyFor(t client.Target) (out bodyOut) {
	if t.Evidence != client.Acked {
		return out
	}
	out.ReplyCode = new(t.Reply.Code)
	if utf8.Valid(t.Reply.Body) {
		out.Reply = string(t.Reply.Body)
	} else {
		out.ReplyBase64 = t.Reply.Body
	}
	return out
}

// show prints those of the targets that have replied and were not printed before.
func (r *replies) show(targets []client.Target) {
	for _, t := range targets {
		if !r.on || r.failed != nil || t.Evidence != client.Acked || r.printed[t.Identity] {
			continue
		}
		r.printed[t.Identity] = true
		if r.p.format == formatTable {
			_, r.failed = fmt.Fprintf(r.p.out, "%s  %d  %s\n", cell(t.Identity), t.Reply.Code, payloadText(t.Reply.Body))
			continue
		}
		r.failed = r.p.line(replyOut{Identity: t.Identity, bodyOut: bodyFor(t), LatencyMS: milliseconds(t.Latency)})
	}
}

// line prints one of many values for machines as they come: a line each, or in YAML a document.
func (p *program) line(value any) error {
	if p.format == formatYAML {
		if _, err := fmt.Fprintln(p.out, "---"); err != nil {
			return err
		}
		return p.show(value)
	}
	return writeJSON(p.out, value, "")
}

// outcome prints a result.
func (p *program) outcome(result *client.Result, r *replies) error {
	switch {
	case p.format == formatTable && result.Ended == client.DryRun:
		return p.dryRun(result)
	case p.format == formatTable:
		return p.multicastTable(result, r.on)
	case !r.on:
		return p.show(resultFor(result))
	}
	brief := *result
	brief.Targets = undelivered(result.Targets)
	return p.line(resultFor(&brief))
}

// undelivered never returns nil.
func undelivered(targets []client.Target) []client.Target {
	some := []client.Target{}
	for _, t := range targets {
		if t.Status != client.Delivered {
			some = append(some, t)
		}
	}
	return some
}

// dryRun prints who is meant: the names go into a pipe, what is said about them does not.
func (p *program) dryRun(r *client.Result) error {
	for _, t := range r.Targets {
		name := t.Identity
		if watched(p.out) {
			name = cell(name)
		}
		if _, err := fmt.Fprintln(p.out, name); err != nil {
			return err
		}
	}
	fmt.Fprintf(p.err, "%s; nothing was sent\n", counted(r.TargetCount, "target", "targets"))
	return nil
}

func (p *program) multicastTable(r *client.Result, withReplies bool) error {
	if r.TargetCount == 0 {
		fmt.Fprintln(p.out, "no identity matches; nothing was sent")
		return nil
	}
	fmt.Fprintln(p.out, summary(r))
	if withReplies {
		fmt.Fprintln(p.out, replyCounts(r.Replies))
	}
	if r.Pending > 0 {
		fmt.Fprintf(p.out, "What becomes of those pending: prism multicasts get %s\n", cell(r.ID))
	}
	return p.undeliveredTable(r)
}

func (p *program) undeliveredTable(r *client.Result) error {
	targets := undelivered(r.Targets)
	if len(targets) == 0 {
		return nil
	}
	rows := make([][]string, len(targets))
	for i, t := range targets {
		words := ""
		if t.Err != nil {
			words = cell(brief(t.Err.Error()))
		}
		rows[i] = []string{cell(t.Identity), t.Status.String(), t.Reason.String(), strconv.Itoa(t.Attempts), words}
	}
	fmt.Fprintln(p.out)
	return p.table([]string{"IDENTITY", "STATUS", "REASON", "ATTEMPTS", "ERROR"}, rows)
}

// summary is a result on one line.
func summary(r *client.Result) string {
	words := ""
	if r.Replayed {
		words = " (the result of the first request with this key)"
	}
	return fmt.Sprintf("%s: %s, in %s%s%s", counted(r.TargetCount, "target", "targets"), counts(r),
		r.Elapsed.Round(10*time.Microsecond), endedWords(r.Ended), words)
}

func counts(r *client.Result) string {
	delivered := "delivered"
	if r.Delivery == client.AtMostOnce {
		delivered = "accepted (not acknowledged)"
	}
	return fmt.Sprintf("%d %s, %d pending, %d failed, %d timeout", r.Delivered, delivered, r.Pending, r.Failed, r.TimedOut)
}

// replyCounts is "3 replied 0, 1 replied 7".
func replyCounts(by map[uint32]int) string {
	if len(by) == 0 {
		return "no replies"
	}
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, fmt.Sprintf("%d replied %d", by[code], code))
	}
	return strings.Join(parts, ", ")
}

func endedWords(ended client.Ended) string {
	switch ended {
	case client.DeadlinePassed:
		return " (the time was up)"
	case client.Cancelled:
		return " (cancelled)"
	default:
		return ""
	}
}

func evidenceName(e client.Evidence) string {
	return name(e, map[client.Evidence]string{client.Accepted: "ACCEPTED", client.Stored: "STORED", client.Acked: "ACKED"})
}

func endedName(e client.Ended) string {
	return name(e, map[client.Ended]string{
		client.Complete: "COMPLETE", client.DeadlinePassed: "DEADLINE", client.Cancelled: "CANCELLED", client.DryRun: "DRY_RUN",
	})
}

func statusName(s client.Status) string {
	if s == 0 {
		return "" // of a dry run
	}
	return s.String()
}

// name is the wire's name of a value; a value of a newer server is its number.
func name[T ~uint8](value T, names map[T]string) string {
	if value == 0 {
		return ""
	}
	if known, ok := names[value]; ok {
		return known
	}
	return strconv.Itoa(int(value))
}

// resultOut is a result for machines, with the names that the HTTP API uses.
type resultOut struct {
	MulticastID    string         `json:"multicast_id,omitempty"`
	Revision       uint64         `json:"revision,omitempty"`
	TargetCount    int            `json:"target_count"`
	DeliveredCount int            `json:"delivered_count"`
	PendingCount   int            `json:"pending_count"`
	FailedCount    int            `json:"failed_count"`
	TimeoutCount   int            `json:"timeout_count"`
	Ended          string         `json:"ended,omitempty"`
	Delivery       string         `json:"delivery"`
	ElapsedMS      float64        `json:"elapsed_ms"`
	ReplyCounts    map[uint32]int `json:"reply_counts,omitempty"`
	Replayed       bool           `json:"replayed,omitempty"`
	Statuses       []statusOut    `json:"statuses,omitzero"` // nil: not asked for
}

type statusOut struct {
	Identity string `json:"identity"`
	Status   string `json:"status,omitempty"`
	Evidence string `json:"evidence,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Error    string `json:"error,omitempty"`
	Attempts int    `json:"attempts"`
	bodyOut

	LatencyMS float64 `json:"latency_ms"`
}

// resultFor lists the targets of the result.
func resultFor(r *client.Result) resultOut {
	out := countsFor(r)
	out.Statuses = make([]statusOut, len(r.Targets))
	for i, t := range r.Targets {
		out.Statuses[i] = statusOut{
			Identity: t.Identity, Status: statusName(t.Status), Evidence: evidenceName(t.Evidence), Reason: t.Reason.String(),
			Attempts: t.Attempts, LatencyMS: milliseconds(t.Latency), bodyOut: bodyFor(t),
		}
		if t.Err != nil {
			out.Statuses[i].Error = t.Err.Error()
		}
	}
	return out
}

// countsFor lists no target.
func countsFor(r *client.Result) resultOut {
	return resultOut{
		MulticastID: r.ID, Revision: uint64(r.Revision), TargetCount: r.TargetCount, DeliveredCount: r.Delivered,
		PendingCount: r.Pending, FailedCount: r.Failed, TimeoutCount: r.TimedOut, Ended: endedName(r.Ended),
		Delivery: string(r.Delivery), ElapsedMS: milliseconds(r.Elapsed), ReplyCounts: r.Replies, Replayed: r.Replayed,
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
