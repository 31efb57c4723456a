package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/examples"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/demo"
)

func newDemoCmd(p *program) *cobra.Command {
	var config string
	var noColor bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show everything on real data, in one process",
		Long: `Show everything on real data: start a server on free ports, register some thousands of the world's airports as weather
stations over gRPC, attach a subscriber for each, enumerate them with three filters, multicast to one selection, and tell
who acknowledged.

Exit codes: 0 every target got it, 2 some did not, 1 error.`,
		Example: `  prism demo
  prism demo --config prism.yaml   # on the backends of its first namespace; its stations are unregistered at the end`,
		Args:              args(cobra.NoArgs, "no arguments"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := app.Default()
			if config != "" {
				var err error
				if cfg, err = app.Load(config); err != nil {
					return configFault(err)
				}
			}
			_, plain := os.LookupEnv("NO_COLOR")
			printer := demo.NewPrinter(p.out, watched(p.out) && !noColor && !plain)
			return runDemo(cmd.Context(), cfg, printer, config != "")
		},
	}
	cmd.Flags().StringVarP(&config, "config", "c", "", "configuration file (YAML); its addresses are not used")
	cmd.Flags().BoolVar(&noColor, "no-color", false, "plain text on a terminal too (or set NO_COLOR)")
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
	return local(cmd, "output")
}

// runDemo serves a configuration on free ports for as long as the demo takes.
func runDemo(ctx context.Context, cfg app.Config, printer *demo.Printer, cleanUp bool) error {
	start := time.Now()
	at, stop, err := embed(ctx, cfg)
	if err != nil {
		return err
	}
	namespace := cfg.Namespaces[0]
	printer.Sayf("A server with the namespace %q on %s, in this process: gRPC on %s, HTTP on %s.",
		namespace.Namespace, backends(namespace), at.GRPC, at.HTTP)
	outcome, err := demonstrate(ctx, at, namespace.Namespace, printer, cleanUp)
	if err := errors.Join(interrupted(ctx, err, ""), stop()); err != nil {
		return err
	}
	printer.Sayf("\n%d targets, %d delivered and acknowledged. All of it took %s.",
		outcome.Targets, outcome.Received, time.Since(start).Round(10*time.Millisecond))
	if !outcome.Complete() {
		return exit{exitSomeNot}
	}
	return nil
}

func demonstrate(
	ctx context.Context, at app.Addresses, namespace string, printer *demo.Printer, cleanUp bool,
) (demo.Outcome, error) {
	c, err := client.Dial(at.GRPC, client.WithNamespace(namespace))
	if err != nil {
		return demo.Outcome{}, err
	}
	defer c.Close()
	return demo.Run(ctx, c, examples.Stations, printer, cleanUp)
}

func backends(n app.Namespace) string {
	text := fmt.Sprintf("%s (registry) and %s (messaging)", n.Registry.Type, n.Messaging.Type)
	if n.Durability.Type != "" {
		text += fmt.Sprintf(" and %s (durability)", n.Durability.Type)
	}
	return text
}
