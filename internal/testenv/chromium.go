package testenv

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Browser is a headless Chromium for pages that a test has made: it starts anew for each look at one, with a profile of its own.
type Browser struct {
	t    testing.TB
	path string
}

// Theme is the colour scheme that a page is told to prefer.
type Theme int

// The themes, by Chromium's numbers.
const (
	Dark Theme = iota
	Light
)

// Chromium returns the browser (chromium of $PATH; on Linux as root it is installed by apt-get where it is missing).
func Chromium(t testing.TB) *Browser {
	t.Helper()
	if path, err := exec.LookPath("chromium-headless-shell"); err == nil {
		return &Browser{t: t, path: path}
	}
	path, err := program("chromium", "chromium")
	if err != nil {
		t.Fatalf("testenv: chromium: %v; install it: apt-get install chromium", err)
	}
	return &Browser{t: t, path: path}
}

// DOM returns a page as HTML after its scripts have run.
func (b *Browser) DOM(url string) string {
	b.t.Helper()
	return string(b.run("--dump-dom", url))
}

// Screenshot returns the upper left of a page, in pixels.
func (b *Browser) Screenshot(url string, width, height int, theme Theme) image.Image {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), "page.png")
	b.run("--screenshot="+path, fmt.Sprintf("--window-size=%d,%d", width, height), "--hide-scrollbars",
		fmt.Sprintf("--blink-settings=preferredColorScheme=%d", theme), url)
	file, err := os.Open(path)
	if err != nil {
		b.t.Fatalf("testenv: chromium: %v", err)
	}
	defer func() { _ = file.Close() }()
	picture, err := png.Decode(file)
	if err != nil {
		b.t.Fatalf("testenv: chromium: %v", err)
	}
	return picture
}

// run starts the browser, waits for its end and returns what it wrote.
func (b *Browser) run(args ...string) []byte {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 4*patience) // it is large, and starts cold
	defer cancel()
	all := append([]string{
		"--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
		"--disable-background-networking", "--user-data-dir=" + b.t.TempDir(),
	}, args...)
	if os.Geteuid() == 0 {
		all = append([]string{"--no-sandbox"}, all...) // which root cannot have
	}
	cmd := exec.CommandContext(ctx, b.path, all...) //nolint:gosec // chromium of $PATH, our own arguments
	cmd.SysProcAttr = childAttributes()
	cmd.WaitDelay = time.Second // its own children may hold the pipes
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		b.t.Fatalf("testenv: %s: %v\n%.4000s", b.path, err, problems.Bytes())
	}
	return out.Bytes()
}
