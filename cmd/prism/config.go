package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/internal/app"
)

func newConfigCmd(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Work with configuration files",
		Args:  cobra.ArbitraryArgs,
		RunE:  group,
	}
	cmd.AddCommand(newConfigValidateCmd(p))
	return local(cmd, "output")
}

func newConfigValidateCmd(p *program) *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Check configuration files",
		Long: `Check configuration files as "prism serve" would read them, and print every problem with its place as
FILE:LINE:COLUMN. No backend is contacted. The exit code is 1 if there is any problem; - reads standard input.

With --show, what is fine is printed with the defaults of all but the slots' own options, and passwords and tokens masked; without
a FILE, what runs without a configuration.`,
		Example: `  prism config validate prism.yaml
  prism config validate deployments/*.yaml
  prism config validate --show > prism.yaml`,
		RunE: func(cmd *cobra.Command, files []string) error {
			switch {
			case show && len(files) == 0:
				fmt.Fprint(p.out, app.Default().YAML())
				return nil
			case len(files) == 0:
				return usagef(cmd, "expected at least one FILE")
			}
			return p.validate(cmd.Context(), files, show)
		},
	}
	cmd.Flags().BoolVar(&show, "show", false, "print the configuration with its defaults")
	return local(cmd, "output")
}

func (p *program) validate(ctx context.Context, files []string, show bool) error {
	var failed error
	for _, file := range files {
		cfg, err := p.load(ctx, file)
		var bad *app.ConfigError
		switch {
		case errors.As(err, &bad):
			for _, problem := range bad.Problems {
				fmt.Fprintln(p.err, printable(problem.String(), true))
			}
			failed = exit{exitError}
		case ctx.Err() != nil:
			return err
		case err != nil:
			p.complainf("%s", brief(err.Error()))
			failed = exit{exitError}
		case show:
			fmt.Fprintf(p.out, "# %s\n%s", cell(file), cfg.Masked().YAML())
		default:
			fmt.Fprintf(p.out, "%s: ok, %s\n", cell(file), counted(len(cfg.Namespaces), "namespace", "namespaces"))
		}
	}
	return failed
}

func (p *program) load(ctx context.Context, file string) (app.Config, error) {
	if file != "-" {
		return app.Load(file)
	}
	src, err := io.ReadAll(newInterruptible(ctx, p.in))
	if err != nil {
		return app.Config{}, err
	}
	return app.Parse("standard input", src)
}

// configFault introduces the list of problems in a file.
func configFault(err error) error {
	if _, ok := errors.AsType[*app.ConfigError](err); ok {
		return fmt.Errorf("the configuration cannot be used:\n%w", err)
	}
	return err
}
