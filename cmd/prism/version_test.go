package main

import (
	"runtime/debug"
	"testing"
)

func TestVersionLine(t *testing.T) {
	t.Parallel()
	info := &debug.BuildInfo{Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}, {Key: "vcs.modified", Value: "true"},
	}}
	v := versionFrom("v1.0.0", info)
	v.Go, v.Platform = "go1.26.0", "linux/arm64"
	want := "prism v1.0.0, commit abc of 2026-01-02T03:04:05Z with changes, go1.26.0, linux/arm64"
	if v.String() != want {
		t.Errorf("printed %q, not %q", v, want)
	}
	v = versionFrom("", nil)
	v.Go, v.Platform = "go1.26.0", "linux/arm64"
	if want := "prism (devel), go1.26.0, linux/arm64"; v.String() != want {
		t.Errorf("printed %q, not %q", v, want)
	}
}
