package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
)

// watchFlags is what watch is told.
type watchFlags struct {
	filter     string
	noMetadata bool
	noSnapshot bool
	resume     string
	count      int
}

func newWatchCmd(p *program) *cobra.Command {
	var f watchFlags
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Follow who matches a filter: who joins, changes and leaves",
		Long: `Print the identities that match a filter, and then who joins them, who is registered anew and who leaves, as it
happens, until Ctrl-C. Without a filter, all identities. Heartbeats are no events. When the server was away it goes on by
itself, with what has happened meanwhile.

The lines say PRESENT for who matches at the beginning; then JOINED, UPDATED, and LEFT with the reason: UNREGISTERED, EXPIRED, or
NO_LONGER_MATCHES. When the server does not know any more what has happened it says so, and PRESENT comes for everybody again.

The formats json and jsonl print a line for each event, among them SYNCED when everybody has been told and RESET when what was
told is void. The resume_token of an event is what --resume goes on behind.

` + filterHelp,
		Example: `  prism watch
  prism watch --filter '{"room": "engineering"}'
  prism watch --filter '{"battery": {"$lt": 0.2}}' --no-snapshot
  prism watch -o jsonl | jq -r 'select(.type == "LEFT") | .identity.identity'`,
		Args:              args(cobra.NoArgs, "no arguments"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.count < 0 {
				return usagef(cmd, "--count must not be negative")
			}
			return p.watch(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.filter, "filter", "", "filter, a `JSON` object (default: every identity)")
	flags.BoolVar(&f.noMetadata, "no-metadata", false, "leave the metadata out")
	flags.BoolVar(&f.noSnapshot, "no-snapshot", false, "print only what changes")
	flags.StringVar(&f.resume, "resume", "", "go on behind the event with this `TOKEN`")
	flags.IntVar(&f.count, "count", 0, "end after `N` changes (default: never)")
	for _, name := range []string{"filter", "resume", "count"} {
		must(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return cmd
}

func (p *program) watch(ctx context.Context, f watchFlags) error {
	q := client.WatchQuery{
		OmitMetadata: f.noMetadata, OmitSnapshot: f.noSnapshot, ResumeToken: f.resume,
		OnInterrupted: func(err error) { p.complainf("%s; trying again", brief(err.Error())) },
	}
	if f.filter != "" {
		var err error
		if q.Filter, err = client.ParseFilter(f.filter); err != nil {
			return err
		}
	}
	c, err := p.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	w := watcher{program: p, flags: f, known: make(map[string]struct{}), whole: !f.noSnapshot && f.resume == ""}
	for event, err := range c.Watch(ctx, q) {
		if err == nil {
			err = w.event(&event)
		}
		if errors.Is(err, errEnough) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// watcher prints events.
type watcher struct {
	*program

	flags   watchFlags
	known   map[string]struct{} // who matches, as far as it was told
	whole   bool                // everybody was told
	changes int
}

// watchOut is an event for machines.
type watchOut struct {
	ReceivedAt  time.Time    `json:"received_at"`
	Type        string       `json:"type"`
	Identity    *identityOut `json:"identity,omitempty"`
	Reason      string       `json:"reason,omitempty"`
	ResumeToken string       `json:"resume_token,omitempty"`
}

func (w *watcher) event(e *client.WatchEvent) error {
	switch e.Type {
	case client.Present, client.Joined, client.Updated:
		w.known[e.Identity.ID] = struct{}{}
	case client.Left:
		delete(w.known, e.Identity.ID)
	case client.Reset:
		clear(w.known)
		w.whole = !w.flags.noSnapshot
		if w.whole {
			w.complainf("the server does not know any more what has happened; from the beginning:")
		} else {
			w.complainf("the server does not know any more what has happened; something is missing here")
		}
	case client.Synced:
		if !w.whole {
			w.complainf("watching; Ctrl-C ends")
		} else {
			w.complainf("watching: %s %s now; Ctrl-C ends", counted(len(w.known), "identity", "identities"),
				map[bool]string{true: "matches", false: "match"}[len(w.known) == 1])
		}
	}
	if err := w.print(e); err != nil {
		return err
	}
	switch e.Type {
	case client.Joined, client.Updated, client.Left:
		if w.changes++; w.flags.count > 0 && w.changes >= w.flags.count {
			return errEnough
		}
	}
	return nil
}

func (w *watcher) print(e *client.WatchEvent) error {
	now := time.Now()
	if w.format != formatTable {
		out := watchOut{ReceivedAt: now.UTC(), Type: e.Type.String(), Reason: e.Reason.String(), ResumeToken: e.ResumeToken}
		if e.Identity.ID != "" {
			out.Identity = new(identityFor(e.Identity))
		}
		return w.line(out)
	}
	if e.Identity.ID == "" {
		return nil
	}
	text := fmt.Sprintf("%s  %-7s  %s", now.Format("15:04:05.000"), e.Type, cell(e.Identity.ID))
	switch {
	case e.Type == client.Left:
		text += "  " + e.Reason.String()
	case !w.flags.noMetadata:
		text += "  " + compact(e.Identity.Metadata())
	}
	_, err := fmt.Fprintln(w.out, text)
	return err
}
