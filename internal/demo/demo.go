// Package demo shows the whole product on real data: it registers weather stations, attaches subscribers for them,
// enumerates with filters and multicasts to one selection, against any server.
//
// What it prints is what it measured: counts come from the responses, and what arrived is counted by the subscribers
// themselves and compared with what the server claims.
package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/prism-data-layer/prism/client"
)

const (
	// registrationsAtOnce bounds the registrations under way at the same time.
	registrationsAtOnce = 64
	// streams is how many subscribers share the stations.
	streams = 8
)

// storm is what the demo multicasts, and selection whom it is for.
const (
	storm     = "Storm warning: secure the instruments and report every 10 minutes."
	selection = 2 // in questions
)

// question is a filter with what it asks in words.
type question struct {
	words, filter string
}

// questions are the filters that the demo enumerates with.
func questions() []question {
	return []question{
		{"Who stands higher than 8,000 ft?", `{"elevation_ft": {"$gt": 8000}}`},
		{"Which large Nordic airports are out there?", `{"size": "large", "country": {"$in": ["DK", "FI", "IS", "NO", "SE"]}}`},
		{
			"Who is served by airlines in the far north of the Americas?",
			`{"timezone": {"$startswith": "America/"}, "scheduled_service": true, "position.lat": {"$gte": 60}}`,
		},
	}
}

// Outcome is what the multicast at the end came to.
type Outcome struct {
	// Targets and Delivered are the server's counts.
	Targets, Delivered int
	// Received counts the messages that the subscribers got and acknowledged.
	Received int
}

// Complete tells whether there were targets, and every one of them got the message, by both accounts.
func (o Outcome) Complete() bool {
	return o.Targets > 0 && o.Delivered == o.Targets && o.Received == o.Targets
}

// Run registers the stations (JSON lines) through c, subscribes for them, enumerates and multicasts, and tells it on p.
// With cleanUp it unregisters at the end, an early one too, what it has registered, and nothing else. It fails when somebody else
// has registered an identity with the name of a station.
func Run(ctx context.Context, c *client.Client, stations []byte, p *Printer, cleanUp bool) (Outcome, error) {
	registrations, err := decode(stations)
	if err != nil {
		return Outcome{}, err
	}
	ours := &registered{revisions: make(map[string]client.Revision)}
	if cleanUp {
		defer unregister(context.WithoutCancel(ctx), c, ours, p)
	}
	if err := register(ctx, c, registrations, ours, p); err != nil {
		return Outcome{}, err
	}
	audience, err := attach(ctx, c, registrations, p)
	if err != nil {
		return Outcome{}, err
	}
	defer audience.close()
	var targets map[string]any
	for i, q := range questions() {
		match, err := client.ParseFilter(q.filter)
		if err != nil {
			return Outcome{}, err
		}
		if i == selection {
			targets = match
		}
		if err := enumerate(ctx, c, q, match, p); err != nil {
			return Outcome{}, err
		}
	}
	return multicast(ctx, c, targets, audience, p)
}

func decode(lines []byte) ([]client.Registration, error) {
	var all []client.Registration
	for scanner := bufio.NewScanner(bytes.NewReader(lines)); scanner.Scan(); {
		var line struct {
			Identity string         `json:"identity"`
			Metadata map[string]any `json:"metadata"`
			TTL      string         `json:"ttl"`
		}
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(all)+1, err)
		}
		ttl, err := time.ParseDuration(line.TTL)
		if err != nil {
			return nil, fmt.Errorf("line %d: ttl: %w", len(all)+1, err)
		}
		all = append(all, client.Registration{ID: line.Identity, Metadata: line.Metadata, TTL: ttl})
	}
	return all, nil
}

// registered is what the demo has registered itself.
type registered struct {
	mu        sync.Mutex
	revisions map[string]client.Revision
}

func register(
	ctx context.Context, c *client.Client, registrations []client.Registration, ours *registered, p *Printer,
) error {
	words := thousands(len(registrations)) + " weather stations, one gRPC call each"
	step := p.begin("register", words, len(registrations))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(registrationsAtOnce)
	for _, r := range registrations {
		group.Go(func() error {
			defer step.advance(1)
			stored, err := c.Register(ctx, r)
			if errors.Is(err, client.ErrAlreadyExists) {
				return fmt.Errorf("%w; the demo touches only what it registered itself: use a namespace without stations, or wait "+
					"until those of an interrupted demo have expired", err)
			}
			if err != nil {
				return err
			}
			ours.mu.Lock()
			defer ours.mu.Unlock()
			ours.revisions[stored.ID] = stored.Revision
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	step.endf("%s registered, %s a second", thousands(len(registrations)), thousands(step.perSecond(len(registrations))))
	return nil
}

func unregister(ctx context.Context, c *client.Client, ours *registered, p *Printer) {
	step := p.begin("clean up", "unregister them all", len(ours.revisions))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(registrationsAtOnce)
	for id, revision := range ours.revisions {
		group.Go(func() error {
			defer step.advance(1)
			_, err := c.UnregisterIf(ctx, id, revision)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		step.endf("some remain until their TTL ends: %v", err)
		return
	}
	step.endf("%s unregistered", thousands(len(ours.revisions)))
}

func enumerate(ctx context.Context, c *client.Client, q question, match map[string]any, p *Printer) error {
	step := p.begin("enumerate", q.words, 0)
	p.detailf("filter  %s", q.filter)
	page, err := c.Enumerate(ctx, client.Query{Filter: match, PageSize: 1000})
	if err != nil {
		return fmt.Errorf("enumerate: %w", err)
	}
	var names []string
	for _, identity := range page.Identities[:min(3, len(page.Identities))] {
		name, _ := identity.Lookup("name")
		names = append(names, fmt.Sprintf("%s (%v)", identity.ID, name))
	}
	if len(names) < page.Total {
		names = append(names, "…")
	}
	p.detailf("found   %s", strings.Join(names, ", "))
	step.endf("%s of the stations match", thousands(page.Total))
	return nil
}

func multicast(ctx context.Context, c *client.Client, match map[string]any, audience *audience, p *Printer) (Outcome, error) {
	step := p.begin("multicast", fmt.Sprintf("to the last selection: %q", storm), 0)
	result, err := c.Multicast(ctx, client.MulticastRequest{
		Filter: match, Payload: []byte(storm), ContentType: "text/plain; charset=utf-8", Delivery: client.AtLeastOnce,
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("multicast: %w", err)
	}
	outcome := Outcome{Targets: result.TargetCount, Delivered: result.Delivered, Received: audience.received(result.ID)}
	latencies := make([]time.Duration, 0, len(result.Targets))
	for _, t := range result.Targets {
		if t.Status == client.Delivered {
			latencies = append(latencies, t.Latency)
			continue
		}
		p.detailf("%s  %s: %v", t.Status, t.Identity, t.Err)
	}
	slices.Sort(latencies)
	p.detailf("target     %4d", result.TargetCount)
	p.detailf("delivered  %4d   acknowledged; the subscribers themselves count %d", result.Delivered, outcome.Received)
	p.detailf("failed     %4d", result.Failed)
	if result.Pending+result.TimedOut > 0 {
		p.detailf("pending    %4d", result.Pending)
		p.detailf("timeout    %4d", result.TimedOut)
	}
	if n := len(latencies); n > 0 {
		p.detailf("acks       median %s, slowest %s", round(latencies[n/2]), round(latencies[n-1]))
	}
	if !outcome.Complete() {
		step.endf("not everybody got it")
		return outcome, nil
	}
	step.endf("every one of them got it")
	return outcome, nil
}

var errNoStations = errors.New("there are no stations to register")
