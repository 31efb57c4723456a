package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/bench"
)

// benchFlags is what bench and its verbs are told.
type benchFlags struct {
	plan     bench.Plan
	ramp     string
	arrivals string
	limits   []string
	delivery string
	preset   string
	embedded bool
	config   string
	report   string
	quiet    bool
}

const benchHelp = `Operations become due at a --rate, or along a --ramp, whatever the server does meanwhile, and their latency
counts from when they were due: a server that stalls shows late operations, and not just one slow call. Without a rate,
--concurrency workers each begin the next operation when the one before has ended, as fast as it goes.

Before the load, --identities identities are registered, in groups of --targets: what an enumerate finds and a multicast reaches
is a group. Real subscribers, on --streams streams, attach to all of them, acknowledge, and check every message: what a multicast
reported is held against what they received. In the end, what was registered is removed.

--server may name several proxies, with commas between them; operations go to them in turn.

Exit codes: 0 every operation was answered, rightly, and every --limit holds, 2 not so, 1 error.`

// benchVerbs are the verbs below bench, other than mixed.
var benchVerbs = []struct{ op, short, example string }{
	{bench.Register, "Register new identities", `
  prism bench register --rate 2000 --duration 30s
  prism bench register --concurrency 16 --embedded`},
	{bench.Enumerate, "Find the identities of a group, and check that all are found", `
  prism bench enumerate --identities 100000 --targets 1000 --rate 200
  prism bench enumerate --ramp 100:5000 --duration 1m --report enumerate.html`},
	{bench.Multicast, "Multicast to a group; its subscribers check every message", `
  prism bench multicast --targets 100 --rate 50
  prism bench multicast --targets 10 --rate 200 --delivery at-most-once --limit p99=20ms`},
	{bench.Attach, "Attach to an identity, receive a message, detach", `
  prism bench subscribe --rate 100
  prism bench subscribe --concurrency 100 --server 10.0.0.1,10.0.0.2`},
}

func newBenchCmd(p *program) *cobra.Command {
	var f benchFlags
	var names []string
	about := "Presets:"
	for _, preset := range bench.Presets() {
		names = append(names, preset.Name)
		about = fmt.Sprintf("%s\n  %-8s%s", about, preset.Name, preset.About)
	}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Put a load on a server and measure it",
		Long:  "Put a load on a running server, or an --embedded one, and measure it.\n\n" + benchHelp + "\n\n" + about,
		Example: `  prism bench mixed --embedded
  prism bench mixed --register 50 --enumerate 30 --multicast 20 --rate 1000 --duration 1m --report out.html
  prism bench multicast --targets 100 --rate 50 -o json
  prism bench --preset spec`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, given []string) error {
			if f.preset == "" || len(given) > 0 {
				return group(cmd, given)
			}
			for _, preset := range bench.Presets() {
				if preset.Name == f.preset {
					return p.bench(cmd, &f, f.over(cmd, preset.Plans))
				}
			}
			return usagef(cmd, "--preset %q is not one of %s", f.preset, strings.Join(names, ", "))
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&f.preset, "preset", "", "run a `SCENARIO`: "+strings.Join(names, ", "))
	must(cmd.RegisterFlagCompletionFunc("preset", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)))
	for _, verb := range benchVerbs {
		cmd.AddCommand(newBenchVerbCmd(p, verb.op, verb.short, verb.example))
	}
	cmd.AddCommand(newBenchMixedCmd(p))
	return cmd
}

func newBenchVerbCmd(p *program, op, short, example string) *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use: op, Short: short, Long: short + ".\n\n" + benchHelp, Example: strings.TrimPrefix(example, "\n"),
		Args: args(cobra.NoArgs, "no arguments"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.plan.Name, f.plan.Shares = op, map[string]float64{op: 1}
			return p.bench(cmd, &f, []bench.Plan{f.plan})
		},
	}
	f.register(cmd)
	return cmd
}

func newBenchMixedCmd(p *program) *cobra.Command {
	var f benchFlags
	shares := make(map[string]*float64)
	cmd := &cobra.Command{
		Use: "mixed", Short: "Several operations at once, by their shares",
		Long: "Several operations at once, by their shares: 50 registrations, 30 enumerates and 20 multicasts in a hundred unless " +
			"others are named.\n\n" + benchHelp,
		Example: `  prism bench mixed --rate 500
  prism bench mixed --register 50 --enumerate 30 --multicast 20 --rate 1000 --duration 1m --report out.html
  prism bench mixed --enumerate 90 --multicast 10 --identities 100000 --ttl 30s --heartbeats 3300 --rate 100`,
		Args: args(cobra.NoArgs, "no arguments"), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.plan.Name, f.plan.Shares = "mixed", make(map[string]float64)
			for op, share := range shares {
				f.plan.Shares[op] = *share
			}
			if !slices.ContainsFunc(bench.Operations(), func(op string) bool { return cmd.Flags().Changed(op) }) {
				f.plan.Shares = map[string]float64{bench.Register: 50, bench.Enumerate: 30, bench.Multicast: 20}
			}
			return p.bench(cmd, &f, []bench.Plan{f.plan})
		},
	}
	f.register(cmd)
	for _, op := range bench.Operations() {
		shares[op] = cmd.Flags().Float64(op, 0, "`SHARE` of "+op)
		must(cmd.RegisterFlagCompletionFunc(op, cobra.NoFileCompletions))
	}
	return cmd
}

func (f *benchFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	plan := &f.plan
	flags.Float64Var(&plan.Rate, "rate", 0, "operations that become due in a second, `N` (default: as fast as the workers go)")
	flags.StringVar(&f.ramp, "ramp", "", "a rate that changes evenly, `FROM:TO`, such as 100:5000")
	flags.StringVar(&f.arrivals, "arrivals", "even", "`WAY` in which operations become due: even, poisson")
	flags.DurationVar(&plan.Duration, "duration", 10*time.Second, "how long operations become due")
	flags.IntVar(&plan.Concurrency, "concurrency", 0, "most operations at once, `N` (default 64; with a rate 1024)")
	flags.IntVar(&plan.Connections, "connections", 1, "connections to each server, `N`")
	flags.IntVar(&plan.Identities, "identities", 1000, "identities that are registered before, `N`")
	flags.IntVar(&plan.Targets, "targets", 100, "identities of a group, `N`")
	flags.DurationVar(&plan.TTL, "ttl", time.Hour, "TTL of the identities")
	flags.IntVar(&plan.Payload, "payload-size", 64, "size of a message in `BYTES`, at least 64")
	flags.StringVar(&f.delivery, "delivery", string(client.AtLeastOnce), "delivery `MODE`: "+strings.Join(deliveryModes(), ", "))
	flags.IntVar(&plan.Streams, "streams", 4, "streams that the subscribers share, `N`")
	flags.BoolVar(&plan.Strong, "strong", false, "ask for answers that reflect all that was written before")
	flags.Float64Var(&plan.Heartbeats, "heartbeats", 0, "heartbeats a second beside the load, `N`")
	flags.StringArrayVar(&f.limits, "limit", nil,
		"fail unless a latency holds, `[OPERATION:]PERCENTILE=TIME`, such as multicast:p99=100ms")
	flags.BoolVar(&plan.Keep, "keep", false, "leave the identities registered")
	flags.BoolVar(&f.embedded, "embedded", false, "start a server in this process")
	flags.StringVarP(&f.config, "config", "c", "", "configuration `FILE` of the embedded server (YAML)")
	flags.StringVar(&f.report, "report", "", "write a page with plots to this `FILE` (HTML)")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "no progress")
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
	must(cmd.MarkFlagFilename("report", "html"))
	for _, name := range []string{
		"rate", "ramp", "duration", "concurrency", "connections", "identities", "targets", "ttl", "payload-size", "streams",
		"heartbeats", "limit",
	} {
		must(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	ways := []string{"even", "poisson"}
	must(cmd.RegisterFlagCompletionFunc("arrivals", cobra.FixedCompletions(ways, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("delivery", cobra.FixedCompletions(deliveryModes(), cobra.ShellCompDirectiveNoFileComp)))
}

// over lays the flags that were given over the plans of a preset.
func (f *benchFlags) over(cmd *cobra.Command, plans []bench.Plan) []bench.Plan {
	plans = slices.Clone(plans)
	for i := range plans {
		p, given := &plans[i], &f.plan
		for flag, set := range map[string]func(){
			"rate":         func() { p.Rate, p.Dedicated = given.Rate, false },
			"duration":     func() { p.Duration = given.Duration },
			"concurrency":  func() { p.Concurrency = given.Concurrency },
			"connections":  func() { p.Connections = given.Connections },
			"identities":   func() { p.Identities = given.Identities },
			"targets":      func() { p.Targets = given.Targets },
			"ttl":          func() { p.TTL = given.TTL },
			"payload-size": func() { p.Payload = given.Payload },
			"streams":      func() { p.Streams = given.Streams },
			"strong":       func() { p.Strong = given.Strong },
			"heartbeats":   func() { p.Heartbeats = given.Heartbeats },
			"keep":         func() { p.Keep = given.Keep },
		} {
			if cmd.Flags().Changed(flag) {
				set()
			}
		}
	}
	return plans
}

// notZero refuses a 0 where it would mean the default.
func notZero(cmd *cobra.Command) error {
	for _, name := range []string{
		"duration", "concurrency", "connections", "identities", "targets", "ttl", "payload-size", "streams",
	} {
		value := cmd.Flags().Lookup(name).Value.String()
		if cmd.Flags().Changed(name) && (value == "0" || value == "0s") {
			return usagef(cmd, "--%s must be above 0", name)
		}
	}
	return nil
}

// complete reads what the flags say as text into a plan.
func (f *benchFlags) complete(cmd *cobra.Command, p *program, plan *bench.Plan) error {
	plan.Timeout = p.timeout
	if cmd.Flags().Changed("delivery") || plan.Delivery == "" {
		plan.Delivery = client.DeliveryMode(f.delivery)
		if !slices.Contains(deliveryModes(), f.delivery) {
			return usagef(cmd, "--delivery %q is not one of %s", f.delivery, strings.Join(deliveryModes(), ", "))
		}
	}
	switch f.arrivals {
	case "even":
	case "poisson":
		plan.Poisson = true
	default:
		return usagef(cmd, "--arrivals %q is not one of even, poisson", f.arrivals)
	}
	if f.ramp != "" {
		from, to, ok := strings.Cut(f.ramp, ":")
		var err1, err2 error
		plan.Rate, err1 = strconv.ParseFloat(from, 64)
		plan.RampTo, err2 = strconv.ParseFloat(to, 64)
		if !ok || err1 != nil || err2 != nil || plan.Rate <= 0 || plan.RampTo <= 0 {
			return usagef(cmd, "--ramp %q: expected two rates, such as 100:5000", f.ramp)
		}
		if cmd.Flags().Changed("rate") {
			return usagef(cmd, "--ramp and --rate exclude each other")
		}
		plan.Dedicated = false
	}
	for _, text := range f.limits {
		limit, err := parseLimit(text, slices.Sorted(maps.Keys(plan.Shares)))
		if err != nil {
			return usagef(cmd, "--limit %q: %s", text, err)
		}
		plan.Limits = append(plan.Limits, limit)
	}
	if f.config != "" && !f.embedded {
		return usagef(cmd, "--config is for a server that is --embedded")
	}
	if err := plan.Validate(); err != nil {
		return usagef(cmd, "%s", err)
	}
	return nil
}

// parseLimit reads OPERATION:pN=TIME. Without an operation it is the only one there is.
func parseLimit(text string, ops []string) (l bench.Limit, err error) {
	const want = "expected [OPERATION:]PERCENTILE=TIME, such as multicast:p99=100ms, with one of p50, p90, p99, p99.9, max"
	what, span, ok := strings.Cut(text, "=")
	op, percentile, named := strings.Cut(what, ":")
	if !named {
		op, percentile = "", what
	}
	bound, err := time.ParseDuration(span)
	if !ok || err != nil || bound <= 0 {
		return l, errors.New(want)
	}
	known := map[string]float64{"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9, "max": 100}
	if l.Percentile, ok = known[percentile]; !ok {
		return l, errors.New(want)
	}
	if op == "" {
		if len(ops) != 1 {
			return l, fmt.Errorf("name an operation: one of %s", strings.Join(ops, ", "))
		}
		op = ops[0]
	}
	if op != bench.Arrival && !slices.Contains(ops, op) {
		return l, fmt.Errorf("%q is no operation of this load; there are %s", op, strings.Join(append(ops, bench.Arrival), ", "))
	}
	l.Operation, l.Milliseconds = op, float64(bound)/float64(time.Millisecond)
	return l, nil
}

// bench carries out plans, one after the other.
func (p *program) bench(cmd *cobra.Command, f *benchFlags, plans []bench.Plan) (err error) {
	ctx := cmd.Context()
	if err := notZero(cmd); err != nil {
		return err
	}
	for i := range plans {
		if err := f.complete(cmd, p, &plans[i]); err != nil {
			return err
		}
	}
	target := bench.Target{Servers: strings.Split(p.server, ","), Embedded: f.embedded, Version: built().Version}
	if f.embedded {
		cfg := app.Default()
		if f.config != "" {
			if cfg, err = app.Load(f.config); err != nil {
				return configFault(err)
			}
			p.namespace = cfg.Namespaces[0].Namespace
		}
		at, stop, err := embed(ctx, cfg)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		target.Servers = []string{at.GRPC}
	}
	for i, server := range target.Servers {
		target.Servers[i] = strings.TrimSpace(server)
	}
	target.Dial = p.connect
	results := make([]*bench.Result, 0, len(plans))
	for i, plan := range plans {
		result, err := bench.Run(ctx, plan, target, p.benchProgress(f.quiet))
		p.endProgress()
		if err != nil {
			return err
		}
		results = append(results, result)
		if err := p.benchResult(f, i, len(plans), result); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(plans) > 1 && (p.format == formatJSON || p.format == formatYAML) {
		if err := p.show(results); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; what was measured up to then is above")
	}
	if slices.ContainsFunc(results, func(r *bench.Result) bool { return !r.OK() }) {
		return exit{exitSomeNot}
	}
	return nil
}
