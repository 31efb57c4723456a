package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
)

// program is what the verbs share: the streams, and the flags that stand on the root.
type program struct {
	in       io.Reader
	out, err io.Writer
	columns  int // of the terminal that out is; 0 when it is none

	overwriting bool // the last line on err is one that is written over

	server    string
	namespace string
	format    string
	timeout   time.Duration

	credentials credentialFlags
}

const quickStart = `Prism keeps track of who is out there, and delivers a message to everyone that matches, with an outcome for
each.

Quick start; the first two go on running, so give each a terminal of its own:
  prism serve
  prism subscribe dev-1 --register --meta room=lab --meta battery:=0.15
  prism enumerate --filter '{"battery": {"$lt": 0.2}}'
  prism multicast --filter '{"room": "lab"}' --payload 'please charge'`

// newRootCmd returns the command with all its verbs.
func newRootCmd(p *program) *cobra.Command {
	root := &cobra.Command{
		Use:           "prism",
		Short:         "Register identities, find them by their metadata, multicast to those that match",
		Long:          quickStart,
		Args:          cobra.ArbitraryArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          group,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{cmd, err.Error()} })
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)

	flags := root.PersistentFlags()
	flags.StringVar(&p.server, "server", env("PRISM_SERVER", client.DefaultServer), "`ADDRESS` of the server (env PRISM_SERVER)")
	flags.StringVarP(&p.namespace, "namespace", "n", env("PRISM_NAMESPACE", client.DefaultNamespace),
		"`NAMESPACE` to work in (env PRISM_NAMESPACE)")
	flags.StringVarP(&p.format, "output", "o", formatTable, "output `FORMAT`: "+strings.Join(formats, ", "))
	flags.DurationVar(&p.timeout, "timeout", 10*time.Second, "longest wait for an answer")
	p.credentials.add(flags)
	completeCredentials(root)
	must(root.RegisterFlagCompletionFunc("namespace", p.completeNamespaces))
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)))
	must(root.RegisterFlagCompletionFunc("server", cobra.NoFileCompletions))
	must(root.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions))
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if !slices.Contains(formats, p.format) {
			return usagef(cmd, "--output %q is not one of %s", p.format, strings.Join(formats, ", "))
		}
		if p.timeout <= 0 {
			return usagef(cmd, "--timeout must be longer than 0")
		}
		return nil
	}

	root.AddGroup(
		&cobra.Group{ID: "server", Title: "Server:"},
		&cobra.Group{ID: "identities", Title: "Identities:"},
		&cobra.Group{ID: "messages", Title: "Messages:"},
	)
	add := func(id string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = id
			root.AddCommand(cmd)
		}
	}
	add("server", newServeCmd(p), newConfigCmd(p), newTokenCmd(p), newNamespacesCmd(p), newDoctorCmd(p), newDemoCmd(p),
		newBenchCmd(p))
	add("identities", newRegisterCmd(p), newHeartbeatCmd(p), newUnregisterCmd(p), newEnumerateCmd(p), newWatchCmd(p),
		newExplainCmd(p))
	add("messages", newMulticastCmd(p), newMulticastsCmd(p), newSubscribeCmd(p))
	add("", newVersionCmd(p))
	return root
}

// group is what a command does that only holds others: it shows its help, or says that there is no such verb.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	problem := fmt.Sprintf("unknown command %q", args[0])
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		problem += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return &usageError{cmd, problem}
}

// local hides the flags that mean nothing to verbs that talk to no server.
func local(cmd *cobra.Command, alsoHidden ...string) *cobra.Command {
	cmd.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		for _, name := range slices.Concat(alsoHidden, credentialNames, []string{"server", "namespace", "timeout"}) {
			if flag := cmd.InheritedFlags().Lookup(name); flag != nil {
				flag.Hidden = true
			}
		}
		cmd.Root().HelpFunc()(cmd, args)
	})
	return cmd
}

// dial returns a client for the shared flags.
func (p *program) dial() (*client.Client, error) {
	return p.connect(p.server)
}

// call runs one call with a client and the --timeout.
func (p *program) call(ctx context.Context, do func(ctx context.Context, c *client.Client) error) error {
	c, err := p.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	return do(ctx, c)
}

// completeNamespaces asks the server, which may be away, for the names.
func (p *program) completeNamespaces(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	p.timeout = 500 * time.Millisecond
	var names []string
	err := p.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
		infos, err := c.Namespaces(ctx)
		for _, info := range infos {
			names = append(names, info.Name)
		}
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// must is for faults in how the commands are built.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
