package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionOut is what this binary was built from.
type versionOut struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Built    string `json:"built,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionCmd(p *program) *cobra.Command {
	return local(&cobra.Command{
		Use:               "version",
		Short:             "Print the version",
		Long:              "Print the version of this binary, the commit that it was built from, and the version of Go.",
		Example:           "  prism version\n  prism version -o json",
		Args:              args(cobra.NoArgs, "no arguments"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			v := built()
			if p.format != formatTable {
				return p.show(v)
			}
			fmt.Fprintf(p.out, "prism %s", v.Version)
			if v.Commit != "" {
				fmt.Fprintf(p.out, ", commit %s", v.Commit)
			}
			if v.Modified {
				fmt.Fprint(p.out, " with changes")
			}
			fmt.Fprintf(p.out, ", %s, %s\n", v.Go, v.Platform)
			return nil
		},
	})
}

// built tells what this binary was built from.
func built() versionOut {
	info, _ := debug.ReadBuildInfo()
	return versionFrom(version, info)
}

// versionFrom prefers what the linker was told over what the Go tool noted.
func versionFrom(linked string, info *debug.BuildInfo) versionOut {
	v := versionOut{Version: linked, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info != nil {
		v.Version = cmp.Or(linked, info.Main.Version)
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Commit = s.Value
			case "vcs.time":
				v.Built = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	v.Version = cmp.Or(v.Version, "(devel)")
	return v
}
