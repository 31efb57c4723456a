package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/internal/auth"
)

// tokenOut is a static token and what a server's configuration needs of it.
type tokenOut struct {
	Token string `json:"token,omitempty"`
	Hash  string `json:"hash"`
}

func newTokenCmd(p *program) *cobra.Command {
	var hash bool
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a static token",
		Long: `Make a static token, and the hash of it that goes into a server's configuration, under auth.tokens. The server never
learns the token: keep it where whoever calls can read it, in a file for --token-file or in PRISM_TOKEN.

With --hash, read a token from standard input and print its hash.`,
		Example: `  prism token
  prism token -o json | jq -r .token > token
  prism token --hash < token`,
		Args:              args(cobra.NoArgs, "no arguments"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var out tokenOut
			if hash {
				text, err := io.ReadAll(io.LimitReader(newInterruptible(cmd.Context(), p.in), 1<<16))
				if err != nil {
					return err
				}
				token := strings.TrimSpace(string(text))
				if len(token) < 32 || strings.ContainsAny(token, " \t\r\n") {
					return errors.New("standard input does not hold one token of at least 32 characters: `prism token` makes one that " +
						"nobody can guess")
				}
				out.Hash = auth.HashToken(token)
			} else {
				out.Token, out.Hash = auth.NewToken()
			}
			if p.format != formatTable {
				return p.show(out)
			}
			if out.Token != "" {
				fmt.Fprintln(p.out, "token  "+out.Token)
			}
			fmt.Fprintln(p.out, "hash   "+out.Hash)
			return nil
		},
	}
	cmd.Flags().BoolVar(&hash, "hash", false, "print the hash of the token on standard input")
	return local(cmd)
}
