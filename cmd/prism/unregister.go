package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
)

func newUnregisterCmd(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "unregister ID...",
		Short: "Remove identities at once",
		Long: `Remove identities, and whatever is stored for them, without waiting for their leases to end. An identity that is not
registered is said to be so, and is no error.`,
		Example: `  prism unregister dev-1
  prism enumerate --filter '{"status": "retired"}' -q | tr '\n' '\0' | xargs -0 -r prism unregister --`,
		Args:              args(cobra.MinimumNArgs(1), "at least one ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, ids []string) error { return p.unregister(cmd.Context(), ids) },
	}
}

func (p *program) unregister(ctx context.Context, ids []string) error {
	type out struct {
		Identity string `json:"identity"`
		Existed  bool   `json:"existed"`
	}
	var done []out
	failed := p.forEach(ctx, ids, func(ctx context.Context, c *client.Client, id string) error {
		existed, err := c.Unregister(ctx, id)
		if err == nil {
			done = append(done, out{id, existed})
		}
		return err
	})
	if p.format != formatTable {
		return errors.Join(each(p, done), failed)
	}
	for _, d := range done {
		if d.Existed {
			fmt.Fprintf(p.out, "unregistered %s\n", cell(d.Identity))
		} else {
			fmt.Fprintf(p.out, "%s was not registered\n", cell(d.Identity))
		}
	}
	return failed
}
