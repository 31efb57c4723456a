package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
)

// registerFlags is what register is told.
type registerFlags struct {
	meta    []string
	json    string
	ttl     string
	replace bool
	file    string
}

func newRegisterCmd(p *program) *cobra.Command {
	var f registerFlags
	cmd := &cobra.Command{
		Use:   "register ID | --file FILE",
		Short: "Register an identity, or a file of them",
		Long: `Register an identity with its metadata and start its lease. It expires unless it is renewed: by "prism heartbeat", or by
"prism subscribe ID --register", which registers, renews and receives.

` + metadataHelp + `

With --file, each line of the file is one identity, and a line that fails is reported with its number while the rest goes on:
  {"identity": "dev-1", "metadata": {"room": "lab"}, "ttl": "30s"}
What "prism enumerate -o jsonl" prints is such a file. The exit code is 1 if any line failed.`,
		Example: `  prism register dev-1 --meta status=online --meta floor:=3 --ttl 30s
  prism register dev-2 --json '{"status": "online", "pos": {"lat": 52.5}}' --ttl never
  prism register dev-1 --meta status=away --replace
  prism register --file examples/stations.jsonl
  prism enumerate -o jsonl | prism register --file - --server other.example:8980`,
		Args:              args(cobra.MaximumNArgs(1), "one ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, ids []string) error {
			switch {
			case f.file != "" && (len(ids) > 0 || f.json != "" || len(f.meta) > 0):
				return usagef(cmd, "--file takes identities and metadata from the file; leave ID, --meta and --json out")
			case f.file != "":
				return p.registerFile(cmd.Context(), f)
			case len(ids) == 0:
				return usagef(cmd, "expected an ID or --file")
			}
			return p.register(cmd, ids[0], f)
		},
	}
	flags := cmd.Flags()
	addMetadataFlags(cmd, &f.meta, &f.json, &f.ttl)
	flags.BoolVar(&f.replace, "replace", false, "take the place of a live identity of that name")
	flags.StringVarP(&f.file, "file", "f", "", "register every line of a JSONL `FILE`; - is standard input")
	must(cmd.MarkFlagFilename("file", "jsonl", "ndjson", "json"))
	return cmd
}

// addMetadataFlags adds the flags that say what an identity registers with.
func addMetadataFlags(cmd *cobra.Command, meta *[]string, object, ttl *string) {
	flags := cmd.Flags()
	flags.StringArrayVar(meta, "meta", nil, "metadata as `KEY=TEXT` or KEY:=JSON; repeatable")
	flags.StringVar(object, "json", "", "metadata as a `JSON` object")
	flags.StringVar(ttl, "ttl", "", "length of the lease, a `DURATION` such as 30s, or never (default: the namespace's)")
	for _, name := range []string{"meta", "json", "ttl"} {
		must(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
}

// registration builds what the flags say for one identity.
func registration(cmd *cobra.Command, id, object string, meta []string, ttl string) (client.Registration, error) {
	metadata, err := metadataOf(object, meta)
	if err != nil {
		return client.Registration{}, usagef(cmd, "%v", err)
	}
	lease, err := ttlOf(ttl)
	if err != nil {
		return client.Registration{}, usagef(cmd, "--%v", err)
	}
	return client.Registration{ID: id, Metadata: metadata, TTL: lease}, nil
}

func mode(replace bool) client.PutMode {
	if replace {
		return client.Replace
	}
	return client.Create
}

func (p *program) register(cmd *cobra.Command, id string, f registerFlags) error {
	r, err := registration(cmd, id, f.json, f.meta, f.ttl)
	if err != nil {
		return err
	}
	r.Mode = mode(f.replace)
	return p.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
		stored, err := c.Register(ctx, r)
		if err != nil {
			return interrupted(ctx, err, cell(r.ID)+" may have been registered")
		}
		if p.format != formatTable {
			return p.show(identityFor(stored))
		}
		fmt.Fprintf(p.out, "registered %s, lease: %s\n", cell(stored.ID), span(stored.TTL))
		return nil
	})
}
