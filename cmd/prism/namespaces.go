package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
)

func newNamespacesCmd(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "namespaces",
		Short: "List the namespaces of the server",
		Long:  "List the namespaces that the server serves, with the backends in their slots and their defaults.",
		Example: `  prism namespaces
  prism namespaces --server prism.internal:8980 -o json`,
		Args:              args(cobra.NoArgs, "no arguments"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return p.namespaces(cmd.Context()) },
	}
}

// namespaceOut is a namespace for machines.
type namespaceOut struct {
	Name          string  `json:"name"`
	Pattern       string  `json:"pattern"`
	Registry      string  `json:"registry"`
	Messaging     string  `json:"messaging"`
	Durability    string  `json:"durability,omitempty"`
	TTLDefault    string  `json:"ttl_default"`
	Delivery      string  `json:"delivery"`
	Timeout       string  `json:"timeout"`
	IdentityCount *uint64 `json:"identity_count,omitempty"`
}

func (p *program) namespaces(ctx context.Context) error {
	var infos []client.NamespaceInfo
	err := p.call(ctx, func(ctx context.Context, c *client.Client) (err error) {
		infos, err = c.Namespaces(ctx)
		return err
	})
	if err != nil {
		return err
	}
	outs := make([]namespaceOut, len(infos))
	rows := make([][]string, len(infos))
	for i, n := range infos {
		outs[i] = namespaceOut{
			Name: n.Name, Pattern: n.Pattern, Registry: n.Registry, Messaging: n.Messaging, Durability: n.Durability,
			TTLDefault: span(n.TTLDefault), Delivery: string(n.Delivery), Timeout: span(n.Timeout),
		}
		count := "?"
		if n.Counted {
			outs[i].IdentityCount = &n.IdentityCount
			count = strconv.FormatUint(n.IdentityCount, 10)
		}
		rows[i] = []string{
			cell(n.Name), count, cell(n.Registry), cell(n.Messaging), cell(n.Durability), span(n.TTLDefault),
			cell(string(n.Delivery)), span(n.Timeout),
		}
	}
	if p.format != formatTable {
		return each(p, outs)
	}
	return p.table([]string{"NAME", "IDENTITIES", "REGISTRY", "MESSAGING", "DURABILITY", "TTL", "DELIVERY", "TIMEOUT"}, rows)
}
