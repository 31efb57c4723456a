package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"strconv"
	"strings"
)

// module is cut off file names, so that folders read as they do in the tree.
const module = "github.com/prism-data-layer/prism/"

// block is a stretch of code as a profile names it: "patterns/memory/registry.go:10.2,12.16".
type block string

// dir is the folder of the package the block belongs to.
func (b block) dir() string { return path.Dir(string(b)) }

// hits says how many statements a block has, and whether any test ran it.
type hits struct {
	statements int
	covered    bool
}

// profile is what a coverage profile says of each block. A block that is reported twice appears once.
type profile map[block]hits

// count is a number of statements and how many of them were covered.
type count struct {
	statements, covered int
}

func (c count) percent() float64 { return 100 * float64(c.covered) / float64(max(c.statements, 1)) }

// String renders the percentage, or a dash where there is nothing to cover. It rounds down: 84.96 is not 85.0.
func (c count) String() string {
	if c.statements == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", float64(c.covered*1000/c.statements)/10)
}

func load(name string) (profile, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%w (run `make test` first)", err)
	}
	p, err := parse(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// parse reads lines of the form "file.go:1.2,3.4 STATEMENTS HITS" behind a first line that says "mode:".
func parse(r io.Reader) (profile, error) {
	p := profile{}
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		if strings.HasPrefix(lines.Text(), "mode: ") {
			continue
		}
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 {
			return nil, fmt.Errorf("line %d: want BLOCK STATEMENTS HITS, got %q", number, lines.Text())
		}
		statements, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		p.add(block(strings.TrimPrefix(fields[0], module)), hits{statements: statements, covered: fields[2] != "0"})
	}
	return p, lines.Err()
}

func (p profile) add(b block, h hits) {
	p[b] = hits{statements: h.statements, covered: h.covered || p[b].covered}
}

// without returns the profile less the folders named and all below them.
func (p profile) without(dirs []string) profile {
	kept := maps.Clone(p)
	maps.DeleteFunc(kept, func(b block, _ hits) bool {
		for _, dir := range dirs {
			if strings.HasPrefix(string(b), strings.TrimSuffix(dir, "/")+"/") {
				return true
			}
		}
		return false
	})
	return kept
}

// packages sums the profile up, by folder and in all.
func (p profile) packages() (byDir map[string]count, total count) {
	byDir = map[string]count{}
	for b, h := range p {
		c := byDir[b.dir()]
		c.statements += h.statements
		total.statements += h.statements
		if h.covered {
			c.covered += h.statements
			total.covered += h.statements
		}
		byDir[b.dir()] = c
	}
	return byDir, total
}
