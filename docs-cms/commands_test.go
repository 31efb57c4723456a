package docs_test

import (
	"context"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// commands lists the command lines of a page: in blocks of sh and console, and in spans that begin with prism or make.
func (p *page) commands() []link {
	var out []link
	for _, b := range p.blocks {
		if b.language == "sh" || b.language == "console" {
			out = append(out, b.commands()...)
		}
	}
	for _, s := range p.spans {
		if strings.HasPrefix(s.text, "prism ") || strings.HasPrefix(s.text, "make ") {
			out = append(out, s)
		}
	}
	return out
}

// commands lists the command lines of a block; those of a console follow a $. What a here-document holds is none.
func (b block) commands() []link {
	var out []link
	lines := strings.Split(b.text, "\n")
	for i := 0; i < len(lines); i++ {
		line, at := lines[i], b.line+i
		command, prompted := strings.CutPrefix(line, "$ ")
		if b.language == "console" && !prompted || strings.TrimSpace(command) == "" {
			continue
		}
		for strings.HasSuffix(command, `\`) && i+1 < len(lines) {
			i++
			command = strings.TrimSuffix(command, `\`) + lines[i]
		}
		if _, end, ok := strings.Cut(command, "<<'"); ok {
			end, _, _ = strings.Cut(end, "'")
			for i+1 < len(lines) && lines[i] != end {
				i++
			}
		}
		out = append(out, link{command, at})
	}
	return out
}

// split splits a command line into its simple commands, and those into words, as a shell does: enough of it for documentation.
func split(line string) [][]string {
	var out [][]string
	var words []string
	word, quote, begun := "", rune(0), false
	endWord := func() {
		if begun {
			words = append(words, word)
		}
		word, begun = "", false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			out = append(out, words)
		}
		words = nil
	}
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word += string(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case r == ' ' || r == '\t':
			endWord()
		case r == '#' && !begun:
			endCommand()
			return out
		case strings.ContainsRune("|;&()", r):
			endCommand()
		default:
			word, begun = word+string(r), true
		}
	}
	endCommand()
	return out
}

var assignment = regexp.MustCompile(`^[A-Za-z_]+=`)

// invocation returns the arguments of a command and its program; prism, wherever it stands.
func invocation(words []string) (args []string, program string) {
	for len(words) > 0 && assignment.MatchString(words[0]) {
		words = words[1:]
	}
	switch {
	case len(words) == 0:
		return nil, ""
	case len(words) > 2 && words[0] == "go" && words[1] == "run" && words[2] == "./cmd/prism":
		return words[3:], "prism"
	}
	return words[1:], words[0][strings.LastIndexByte(words[0], '/')+1:]
}

// targets are the targets among the arguments of make.
func targets(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(a string) bool {
		return strings.HasPrefix(a, "-") || strings.Contains(a, "=") || !regexp.MustCompile(`^[a-z][a-z-]*$`).MatchString(a)
	})
}

// helps asks the binary about its commands.
type helps struct {
	ctx   context.Context
	prism string
	of    map[string]help
}

// help is what a command says about itself.
type help struct {
	commands []string
	flags    map[string]bool // and whether they take a value
}

var (
	subcommand = regexp.MustCompile(`(?m)^  ([a-z]+) {2,}\S`)
	flagForm   = regexp.MustCompile(`(?m)^ +(?:(-[a-zA-Z]), )?(--[a-z-]+)( \S+)?`)
)

func (h *helps) ask(path []string) help {
	name := strings.Join(path, " ")
	if known, ok := h.of[name]; ok {
		return known
	}
	out, _ := exec.CommandContext(h.ctx, h.prism, append(slices.Clone(path), "--help")...).CombinedOutput() // it says so if it fails
	known := help{flags: map[string]bool{"--help": false, "-h": false}}
	text := string(out)
	if strings.Contains(text, "Use \"prism") || strings.Contains(text, "Available Commands:") {
		list, _, _ := strings.Cut(text, "\nFlags:")
		for _, m := range subcommand.FindAllStringSubmatch(list, -1) {
			if m[1] != "prism" {
				known.commands = append(known.commands, m[1])
			}
		}
	}
	_, list, _ := strings.Cut(text, "\nFlags:")
	for _, m := range flagForm.FindAllStringSubmatch(list, -1) {
		// a value is named in one word: NAME, duration, KEY=TEXT; a description is set off by two spaces
		value := m[3] != ""
		known.flags[m[2]] = value
		if m[1] != "" {
			known.flags[m[1]] = value
		}
	}
	h.of[name] = known
	return known
}

// check tells what is wrong with the arguments of prism; "" if nothing is.
func (h *helps) check(args []string) string {
	var path []string
	known := h.ask(nil)
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return ""
		case arg == "…" || arg == "...":
		case strings.HasPrefix(arg, "-") && arg != "-":
			name, _, given := strings.Cut(arg, "=")
			value, ok := known.flags[name]
			if !ok {
				return "prism " + strings.Join(path, " ") + " has no flag " + name
			}
			if value && !given {
				i++
			}
		case slices.Contains(known.commands, arg):
			path = append(path, arg)
			known = h.ask(path)
		case len(path) == 0:
			return "there is no command " + arg
		}
	}
	return ""
}

func TestSplit(t *testing.T) {
	t.Parallel()
	got := split(`A=1 bin/prism x --f 'a b' --g="c|d" & prism y | jq . # prism z`)
	want := [][]string{{"A=1", "bin/prism", "x", "--f", "a b", "--g=c|d"}, {"prism", "y"}, {"jq", "."}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q", got)
	}
	if args, program := invocation(want[0]); program != "prism" || args[0] != "x" {
		t.Errorf("got %q of %q", args, program)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	known := &helps{ctx: t.Context(), prism: prism(t), of: make(map[string]help)}
	for line, want := range map[string]string{
		"prism multicasts cancel 0123":                         "",
		"prism enumerate --filter '{}' -q":                     "",
		"prism enumerate --nonsense":                           "prism enumerate has no flag --nonsense",
		"prism nonsense":                                       "there is no command nonsense",
		"prism multicast --payload --all --filter '{\"a\":1}'": "",
		"prism bench mixed --embedded":                         "",
		"prism config validate --show":                         "",
		"prism config validate --hide":                         "prism config validate has no flag --hide",
	} {
		args, _ := invocation(split(line)[0])
		if got := known.check(args); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}
