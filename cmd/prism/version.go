package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// versionOut is what this binary was built from.
type versionOut struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Date     string `json:"date,omitempty"` // of the commit, not of the build: two builds of one commit are the same
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionCmd(p *program) *cobra.Command {
	return local(&cobra.Command{
		Use:               "version",
		Short:             "Print the version",
		Long:              "Print the version of this binary, the commit it was built from with its date, of Go, and the platform.",
		Example:           "  prism version\n  prism version -o json",
		Args:              args(cobra.NoArgs, "no arguments"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			v := built()
			if p.format != formatTable {
				return p.show(v)
			}
			fmt.Fprintln(p.out, v)
			return nil
		},
	})
}

// String is the line that people read.
func (v versionOut) String() string {
	var b strings.Builder
	b.WriteString("prism " + v.Version)
	if v.Commit != "" {
		b.WriteString(", commit " + v.Commit)
	}
	if v.Date != "" {
		b.WriteString(" of " + v.Date)
	}
	if v.Modified {
		b.WriteString(" with changes")
	}
	b.WriteString(", " + v.Go + ", " + v.Platform)
	return b.String()
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
				v.Date = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	v.Version = cmp.Or(v.Version, "(devel)")
	return v
}
