package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
)

func newHeartbeatCmd(p *program) *cobra.Command {
	var ttl string
	cmd := &cobra.Command{
		Use:   "heartbeat ID...",
		Short: "Renew leases",
		Long: `Renew the leases of identities, for the TTL that they have or for a new one. An identity that is not registered, or has
expired, must be registered again: the exit code is 1.`,
		Example: `  prism heartbeat dev-1
  prism heartbeat dev-1 dev-2 --ttl 2m`,
		Args:              args(cobra.MinimumNArgs(1), "at least one ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, ids []string) error {
			lease, err := ttlOf(ttl)
			if err != nil {
				return usagef(cmd, "--%v", err)
			}
			return p.heartbeat(cmd.Context(), ids, lease)
		},
	}
	cmd.Flags().StringVar(&ttl, "ttl", "", "new length of the leases, a `DURATION` such as 30s (default: the one they have)")
	must(cmd.RegisterFlagCompletionFunc("ttl", cobra.NoFileCompletions))
	return cmd
}

// leaseOut is a lease for machines.
type leaseOut struct {
	Identity  string     `json:"identity"`
	TTL       string     `json:"ttl"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

func (p *program) heartbeat(ctx context.Context, ids []string, ttl time.Duration) error {
	var leases []leaseOut
	rows := make([][]string, 0, len(ids))
	failed := p.forEach(ctx, ids, func(ctx context.Context, c *client.Client, id string) error {
		lease, err := c.Heartbeat(ctx, id, ttl)
		if errors.Is(err, client.ErrNotFound) {
			return errors.Join(err, errors.New("`prism register` registers it again"))
		}
		if err != nil {
			return err
		}
		leases = append(leases, leaseOut{Identity: id, TTL: span(lease.TTL), ExpiresAt: moment(lease.ExpiresAt)})
		rows = append(rows, []string{cell(id), span(lease.TTL), left(lease.ExpiresAt)})
		return nil
	})
	if p.format != formatTable {
		return errors.Join(each(p, leases), failed)
	}
	if len(rows) > 0 {
		return errors.Join(p.table([]string{"IDENTITY", "TTL", "LEFT"}, rows), failed)
	}
	return failed
}

// forEach does one call for each identity and reports each error. A server that cannot be reached ends it, and an
// interrupt does.
func (p *program) forEach(
	ctx context.Context, ids []string, do func(ctx context.Context, c *client.Client, id string) error,
) error {
	c, err := p.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	var failed error
	for _, id := range ids {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, p.timeout)
			defer cancel()
			return do(ctx, c, id)
		}()
		switch {
		case errors.Is(err, client.ErrUnavailable):
			return err
		case ctx.Err() != nil && errors.Is(err, context.Canceled):
			return interrupted(ctx, err, cell(id)+" may have been done, and none after it")
		case err != nil:
			p.complainf("%s", brief(cell(id)+": "+err.Error()))
			failed = exit{exitError}
		}
	}
	return failed
}
