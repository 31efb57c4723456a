package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// How often a multicast with pending targets is asked after: soon after something has changed, and more and more seldom while
// nothing does.
const (
	firstPoll   = 250 * time.Millisecond
	longestPoll = 5 * time.Second
)

// waiting waits until no target of a multicast is pending any more.
type waiting struct {
	p       *program
	c       *client.Client
	longest time.Duration // 0: for ever
	report  client.Report // of the result
	replies *replies
}

// run returns what has become of a multicast when nothing is pending any more, the time is up, or the context has ended. An
// error comes with what is known.
func (w *waiting) run(ctx context.Context, result *client.Result) (*client.Result, error) {
	bounded, cancel := ctx, func() {}
	if w.longest > 0 {
		bounded, cancel = context.WithTimeout(ctx, w.longest)
	}
	defer cancel()
	fmt.Fprintf(w.p.err, "%s: %s; waiting for those pending, Ctrl-C ends\n",
		counted(result.TargetCount, "target", "targets"), counts(result))
	if err := w.poll(bounded, result.ID, result.Pending); err != nil {
		return result, err
	}
	// Ctrl-C has ended the waiting, not the answer to it.
	record, err := w.ask(context.WithoutCancel(ctx), result.ID, w.report)
	if err != nil {
		return result, fmt.Errorf("what has become of it since: %w", err)
	}
	if record.State != client.Running {
		w.replies.show(record.Result.Targets)
		result = &record.Result
	}
	return result, nil
}

// poll returns when nothing is pending, or the context has ended.
func (w *waiting) poll(ctx context.Context, id string, pending int) error {
	report := client.ReportCounts
	if w.replies.on {
		report = client.ReportAll
	}
	wait, away := firstPoll, false
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		record, err := w.ask(ctx, id, report)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, client.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
			if !away {
				w.p.complainf("%s; trying again", brief(err.Error()))
			}
			away = true
		case err != nil:
			return fmt.Errorf("what has become of it since: %w", err)
		case record.State == client.Running:
			away = false
		default:
			away = false
			w.replies.show(record.Result.Targets)
			if record.Result.Pending == 0 {
				return nil
			}
			if record.Result.Pending != pending {
				pending, wait = record.Result.Pending, firstPoll
				fmt.Fprintf(w.p.err, "%s\n", counts(&record.Result))
			}
		}
		timer.Reset(wait)
		wait = min(wait*3/2, longestPoll)
	}
}

func (w *waiting) ask(ctx context.Context, id string, report client.Report) (*client.MulticastRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, w.p.timeout)
	defer cancel()
	return w.c.GetMulticastReport(ctx, id, report)
}
