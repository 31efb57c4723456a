package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/internal/app"
)

// serveFlags is what serve is told.
type serveFlags struct {
	config    string
	grpc      string
	http      string
	admin     string
	insecure  bool
	logLevel  string
	logFormat string
}

var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"text", "json"}
)

func newServeCmd(p *program) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a server",
		Long: `Run a server: the gRPC API on one address, the HTTP/JSON API on another. Without a configuration there is one namespace,
"default", in the memory of the process.

With a configuration file the server follows it: when the file changes, or on SIGHUP, namespaces that are new, changed or gone,
access, limits, schemas and accepted credentials are taken over without dropping anybody else's streams. A file that cannot be
used changes nothing, and the log says why.

SIGTERM and Ctrl-C drain: streams are told, calls in flight finish, and the exit code is 0. A second signal ends at once.`,
		Example: `  prism serve
  prism serve --config prism.yaml --log-format json
  kill -HUP $(pidof prism)                                      # takes over a changed prism.yaml at once
  prism serve --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0   # free ports; it prints which`,
		Args:              args(cobra.NoArgs, "no arguments"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := p.logger(cmd, f)
			if err != nil {
				return err
			}
			return p.serve(cmd.Context(), f, logger)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "configuration `FILE` (YAML)")
	flags.StringVar(&f.grpc, "grpc-addr", "", "`ADDRESS` of the gRPC API (default "+app.DefaultGRPC+", or the configuration's)")
	flags.StringVar(&f.http, "http-addr", "", "`ADDRESS` of the HTTP API (default "+app.DefaultHTTP+", or the configuration's)")
	flags.StringVar(&f.admin, "admin-addr", "",
		"`ADDRESS` of metrics, health and profiles, for operators alone (default none, or the configuration's)")
	flags.BoolVar(&f.insecure, "insecure", false, "serve whoever comes, without auth, also on addresses that others can reach")
	flags.StringVar(&f.logLevel, "log-level", "info", "`LEVEL`: "+strings.Join(logLevels, ", "))
	flags.StringVar(&f.logFormat, "log-format", "text", "`FORMAT`: "+strings.Join(logFormats, ", "))
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
	must(cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions(logLevels, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions(logFormats, cobra.ShellCompDirectiveNoFileComp)))
	return local(cmd, "output")
}

func (p *program) logger(cmd *cobra.Command, f serveFlags) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, usagef(cmd, "--log-level %q is not one of %s", f.logLevel, strings.Join(logLevels, ", "))
	}
	options := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(p.err, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(p.err, options)), nil
	}
	return nil, usagef(cmd, "--log-format %q is not one of %s", f.logFormat, strings.Join(logFormats, ", "))
}

func (p *program) serve(ctx context.Context, f serveFlags, logger *slog.Logger) error {
	var src []byte
	if f.config != "" {
		var err error
		if src, err = app.Read(f.config); err != nil {
			return configFault(err)
		}
	}
	cfg, err := f.parse(src)
	if err != nil {
		return configFault(err)
	}
	var options []app.Option
	if f.config != "" {
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
		options = append(options, app.WithReload(app.Reload{File: f.config, Loaded: src, Parse: f.parse, Now: hangups}))
	}
	return app.Run(ctx, cfg, logger, func(at app.Addresses) {
		fmt.Fprintf(p.out, "gRPC listens on %s\nHTTP listens on http://%s\n", at.GRPC, at.HTTP)
		if at.Admin != "" {
			fmt.Fprintf(p.out, "metrics, health and profiles are on http://%s\n", at.Admin)
		}
	}, options...)
}

// parse reads the configuration, if there is a file. Flags outdo it.
func (f serveFlags) parse(src []byte) (app.Config, error) {
	cfg := app.Default()
	if f.config != "" {
		var err error
		if cfg, err = app.Parse(f.config, src); err != nil {
			return cfg, err
		}
	}
	if f.grpc != "" {
		cfg.Listen.GRPC = f.grpc
	}
	cfg.Insecure = cfg.Insecure || f.insecure
	if f.http != "" {
		cfg.Listen.HTTP = f.http
	}
	if f.admin != "" {
		cfg.Listen.Admin = f.admin
	}
	cfg.Version = version
	return cfg, nil
}
