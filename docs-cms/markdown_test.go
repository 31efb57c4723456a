package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// root is the root of the repository.
const root = ".."

// A page is a Markdown file, as far as these tests look into it.
type page struct {
	path    string // from the root
	anchors map[string]bool
	links   []link
	blocks  []block
	spans   []link // code within text
}

// link is a link's target, or a span of code.
type link struct {
	text string
	line int
}

// A block is fenced code.
type block struct {
	language string
	text     string
	line     int    // of its first line of text
	section  string // the heading of level 2 above it
	skipped  bool   // the page says that it is not run
}

var (
	heading    = regexp.MustCompile(`^(#{1,6})\s+(.*?)\s*#*$`)
	linkForm   = regexp.MustCompile(`!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)`)
	reference  = regexp.MustCompile(`^\[[^\]]+\]:\s+<?(\S+?)>?$`)
	attribute  = regexp.MustCompile(`\b(?:src|href)="([^"]+)"`)
	codeSpan   = regexp.MustCompile("`+[^`]+`+")
	fence      = regexp.MustCompile("^(\\s*)(```+|~~~+)\\s*([A-Za-z0-9_-]*)")
	linkedText = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
)

// notRun marks a block that is not run, and why.
const notRun = "<!-- not run: "

// pages reads every Markdown file of the repository that belongs to it.
func pages(t *testing.T) map[string]*page {
	t.Helper()
	all := make(map[string]*page)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "bin" || name == "dist" || name == "coverage") {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		own, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		all[filepath.ToSlash(own)] = read(filepath.ToSlash(own), string(text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found %d pages only", len(all))
	}
	return all
}

func read(path, text string) *page {
	p := &page{path: path, anchors: make(map[string]bool)}
	slugs := make(map[string]int)
	section, skipped, end := "", false, ""
	var open *block
	for i, line := range strings.Split(text, "\n") {
		if open != nil {
			if strings.HasPrefix(strings.TrimSpace(line), end) {
				open.text = dedent(open.text)
				p.blocks = append(p.blocks, *open)
				open, skipped = nil, false
				continue
			}
			open.text += line + "\n"
			continue
		}
		if m := fence.FindStringSubmatch(line); m != nil {
			open, end = &block{language: m[3], line: i + 2, section: section, skipped: skipped}, m[2]
			continue
		}
		if m := heading.FindStringSubmatch(line); m != nil {
			slug := slugOf(m[2])
			p.anchors[numbered(slug, slugs[slug])] = true
			slugs[slug]++
			if m[1] == "##" {
				section = m[2]
			}
		}
		skipped = strings.HasPrefix(line, notRun) || skipped && strings.TrimSpace(line) == ""
		p.readLine(line, i+1)
	}
	return p
}

func (p *page) readLine(line string, number int) {
	for _, span := range codeSpan.FindAllString(line, -1) {
		p.spans = append(p.spans, link{strings.Trim(span, "` "), number})
	}
	plain := codeSpan.ReplaceAllString(line, "code")
	for _, form := range []*regexp.Regexp{linkForm, reference, attribute} {
		for _, m := range form.FindAllStringSubmatch(plain, -1) {
			p.links = append(p.links, link{m[1], number})
		}
	}
}

// slugOf is the anchor of a heading, as GitHub makes it.
func slugOf(text string) string {
	text = linkedText.ReplaceAllString(text, "$1")
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			b.WriteRune(r)
		case r == ' ':
			b.WriteByte('-')
		}
	}
	return b.String()
}

func numbered(slug string, times int) string {
	if times == 0 {
		return slug
	}
	return slug + "-" + strconv.Itoa(times)
}

// dedent takes off the indentation that all lines share.
func dedent(text string) string {
	lines := strings.SplitAfter(text, "\n")
	least := -1
	for _, line := range lines {
		if own := len(line) - len(strings.TrimLeft(line, " ")); strings.TrimSpace(line) != "" && (least < 0 || own < least) {
			least = own
		}
	}
	for i, line := range lines {
		lines[i] = line[min(max(least, 0), len(line)-len(strings.TrimLeft(line, " "))):]
	}
	return strings.Join(lines, "")
}

func TestRead(t *testing.T) {
	t.Parallel()
	p := read("x.md", "# A `b` c\n[a](b.md#c) `[no](x)` ![i](i.svg)\n\n## Twice\n\n## Twice\n"+notRun+"why -->\n```sh\n  [no](y)\n```\n\n```yaml\na: 1\n```\n")
	if !p.anchors["a-b-c"] || !p.anchors["twice"] || !p.anchors["twice-1"] {
		t.Errorf("anchors: %v", p.anchors)
	}
	if len(p.links) != 2 || p.links[0] != (link{"b.md#c", 2}) || p.links[1] != (link{"i.svg", 2}) {
		t.Errorf("links: %v", p.links)
	}
	if len(p.blocks) != 2 || !p.blocks[0].skipped || p.blocks[0].text != "[no](y)\n" || p.blocks[1].skipped || p.blocks[1].section != "Twice" {
		t.Errorf("blocks: %+v", p.blocks)
	}
}
