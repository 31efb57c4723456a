package app

import (
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// text reads a non-empty string.
func (d *decoder) text(n ast.Node, what string, out *string) {
	s, ok := n.(*ast.StringNode)
	if !ok || s.Value == "" {
		d.expected(n, what, "text")
		return
	}
	*out = s.Value
}

// secret reads a non-empty string that no problem ever quotes.
func (d *decoder) secret(n ast.Node, what string, out *string) {
	s, ok := n.(*ast.StringNode)
	if !ok || s.Value == "" {
		d.atf(n, "%s: expected text; a number needs quotes", what)
		return
	}
	*out = s.Value
}

// texts reads a list of non-empty strings.
func (d *decoder) texts(n ast.Node, what string, out *[]string) {
	d.list(n, what, func(_ int, n ast.Node) {
		var s string
		d.text(n, what, &s)
		*out = append(*out, s)
	})
}

// truth reads true or false.
func (d *decoder) truth(n ast.Node, what string, out *bool) {
	b, ok := n.(*ast.BoolNode)
	if !ok {
		d.expected(n, what, "true or false")
		return
	}
	*out = b.Value
}

// choice reads one of a few strings.
func (d *decoder) choice(n ast.Node, what string, out *string, legal ...string) {
	if s, ok := n.(*ast.StringNode); ok && slices.Contains(legal, s.Value) {
		*out = s.Value
		return
	}
	d.atf(n, "%s: %s is not possible; legal values: %s", what, describe(n), strings.Join(legal, ", "))
}

// address reads host:port.
func (d *decoder) address(n ast.Node, what string, out *string) {
	s, ok := n.(*ast.StringNode)
	if ok {
		if _, port, err := net.SplitHostPort(s.Value); err == nil {
			if _, err := strconv.ParseUint(port, 10, 16); err == nil {
				*out = s.Value
				return
			}
		}
	}
	d.expected(n, what, "host:port, such as 127.0.0.1:8980 or :8980")
}

// duration reads a positive duration: a number is in seconds.
func (d *decoder) duration(n ast.Node, what string, out *time.Duration) {
	d.span(n, what, `seconds as a number, or a duration such as "5s"`, out)
}

// durationOrZero reads a duration that may be 0.
func (d *decoder) durationOrZero(n ast.Node, what string, out *time.Duration) {
	switch v := n.(type) {
	case *ast.IntegerNode:
		if strings.Trim(v.GetToken().Value, "0_") == "" {
			*out = 0
			return
		}
	case *ast.StringNode:
		if zero, err := time.ParseDuration(v.Value); err == nil && zero == 0 {
			*out = 0
			return
		}
	}
	d.duration(n, what, out)
}

// maxSpan keeps durations far from what would overflow.
const maxSpan = 100 * 365 * 24 * time.Hour

func (d *decoder) span(n ast.Node, what, want string, out *time.Duration) {
	var span time.Duration
	switch v := n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		seconds, err := strconv.ParseFloat(strings.ReplaceAll(n.GetToken().Value, "_", ""), 64)
		if err != nil || math.IsNaN(seconds) {
			d.expected(n, what, want)
			return
		}
		if math.Abs(seconds) > maxSpan.Seconds() {
			span = maxSpan + 1
			break
		}
		span = time.Duration(seconds * float64(time.Second))
	case *ast.StringNode:
		var err error
		if span, err = time.ParseDuration(v.Value); err != nil {
			d.expected(n, what, want)
			return
		}
	default:
		d.expected(n, what, want)
		return
	}
	if span < time.Millisecond || span > maxSpan {
		d.atf(n, "%s: %s is out of range; legal values: 1ms to %s", what, shorten(n.GetToken().Value), "876000h (100 years)")
		return
	}
	*out = span
}

// count reads a whole number from 1 to most.
func (d *decoder) count(n ast.Node, what string, out *int, most int) { d.within(n, what, out, 1, most) }

// within reads a whole number from least to most.
func (d *decoder) within(n ast.Node, what string, out *int, least, most int) {
	v, ok := number(n)
	minus := ok && strings.HasPrefix(n.GetToken().Value, "-")
	if !ok {
		d.expected(n, what, "a whole number")
		return
	}
	if minus || v < uint64(least) || v > uint64(most) {
		d.atf(n, "%s: %s is out of range; legal values: %d to %d", what, shorten(n.GetToken().Value), least, most)
		return
	}
	*out = int(v)
}

// number reads a decimal whole number; 0x1F and 010 mean different things to different readers.
func number(n ast.Node) (uint64, bool) {
	if _, ok := n.(*ast.IntegerNode); !ok {
		return 0, false
	}
	text := strings.ReplaceAll(n.GetToken().Value, "_", "")
	if len(text) > 1 && text[0] == '0' {
		return 0, false
	}
	if strings.HasPrefix(text, "-") {
		return 0, true // out of every range here
	}
	v, err := strconv.ParseUint(text, 10, 64)
	return v, err == nil
}

var sizeUnits = []struct {
	suffix string
	bytes  uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}}

// maxPayload is the largest max_payload: a message has to fit into memory several times over.
const maxPayload = 64 << 20

// maxMetadata is the largest max_metadata: one identity has to fit into a page, and a page into a message of gRPC's default
// size.
const maxMetadata = 2 << 20

// size reads a number of bytes from 1 to most, which may have a unit.
func (d *decoder) size(n ast.Node, what string, out *int, most uint64) {
	v, ok := number(n)
	if s, isText := n.(*ast.StringNode); isText {
		for _, unit := range sizeUnits {
			digits, found := strings.CutSuffix(s.Value, unit.suffix)
			if !found {
				continue
			}
			parsed, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 32)
			v, ok = parsed*unit.bytes, err == nil
			break
		}
	}
	if !ok {
		d.expected(n, what, `bytes as a number, or with a unit such as "512KiB" (B, KB, KiB, MB, MiB, GB, GiB)`)
		return
	}
	if v < 1 || v > most {
		d.atf(n, "%s: %s is out of range; legal values: 1 to %d", what, shorten(n.GetToken().Value), most)
		return
	}
	*out = int(v)
}
