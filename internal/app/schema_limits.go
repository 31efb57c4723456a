package app

import (
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/internal/limits"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// limits reads what callers may take of a namespace.
func (d *decoder) limits(n ast.Node, out *Namespace) {
	l := &out.Limits
	before := len(d.problems)
	d.mapping(n, "limits",
		key{name: "min_ttl", read: func(n ast.Node) { d.duration(n, "limits.min_ttl", &l.MinTTL) }},
		key{name: "max_ttl", read: func(n ast.Node) { d.duration(n, "limits.max_ttl", &l.MaxTTL) }},
		key{name: "max_targets", read: func(n ast.Node) { d.count(n, "limits.max_targets", &l.MaxTargets, maxLimit) }},
		key{name: "per_caller", read: func(n ast.Node) { d.share(n, "limits.per_caller", &l.PerCaller) }},
		key{name: "total", read: func(n ast.Node) { d.share(n, "limits.total", &l.Total) }},
	)
	if len(d.problems) == before {
		d.invalid(n, "limits", l.Validate())
	}
}

// maxLimit is the largest number that bounds something: more than there can be.
const maxLimit = 1_000_000_000

func (d *decoder) share(n ast.Node, what string, s *limits.Share) {
	d.mapping(n, what,
		key{name: "streams", read: func(n ast.Node) { d.count(n, what+".streams", &s.Streams, maxLimit) }},
		key{name: "attached", read: func(n ast.Node) { d.count(n, what+".attached", &s.Attached, maxLimit) }},
		key{name: "payload_bytes", read: func(n ast.Node) { s.PayloadBytes = d.rate(n, what+".payload_bytes", ofBytes) }},
		key{name: "metadata_bytes", read: func(n ast.Node) { s.MetadataBytes = d.rate(n, what+".metadata_bytes", ofBytes) }},
		key{name: "rates", read: func(n ast.Node) {
			s.Rates = make(map[auth.Role]limits.Rate)
			var keys []key
			for _, role := range auth.Roles() {
				if role == auth.RoleAdmin {
					continue
				}
				keys = append(keys, key{name: string(role), read: func(n ast.Node) {
					s.Rates[role] = d.rate(n, what+".rates."+string(role), ofCalls)
				}})
			}
			d.mapping(n, what+".rates", keys...)
		}},
	)
}

// What rates are of, and look like.
const (
	ofCalls = `a number of calls in a second, a minute or an hour, such as "100/s", "30/m" or "5/h"`
	ofBytes = `bytes in a second, a minute or an hour, such as "1MiB/s" or "500000/m"`
)

// rate reads "100/s", or a mapping of rate and burst.
func (d *decoder) rate(n ast.Node, what, shape string) (r limits.Rate) {
	if text, ok := n.(*ast.StringNode); ok {
		number, per, _ := strings.Cut(text.Value, "/")
		unit := 1.0
		if shape == ofBytes {
			number, unit = cutUnit(number)
		}
		seconds := map[string]float64{"s": 1, "m": 60, "h": 3600}[per]
		value, err := strconv.ParseFloat(number, 64)
		if value *= unit; err != nil || seconds == 0 || !(value > 0) || value > mostRate(shape) {
			d.atf(n, "%s: expected %s, got %q", what, shape, shorten(text.Value))
			return r
		}
		r.PerSecond = value / seconds
		return r
	}
	if _, ok := n.(*ast.MappingNode); !ok {
		if _, ok := n.(*ast.MappingValueNode); !ok {
			d.expected(n, what, shape)
			return r
		}
	}
	burst := 0
	d.mapping(n, what,
		key{name: "rate", required: true, read: func(n ast.Node) { r = d.rate(n, what+".rate", shape) }},
		key{name: "burst", read: func(n ast.Node) {
			if shape == ofBytes {
				d.size(n, what+".burst", &burst, mostBurst)
				return
			}
			d.count(n, what+".burst", &burst, maxLimit)
		}},
	)
	r.Burst = burst
	return r
}

// mostBurst is the largest burst in bytes: more than a message can have.
const mostBurst = 1 << 30

func mostRate(shape string) float64 {
	if shape == ofBytes {
		return 1 << 40
	}
	return maxLimit
}

// cutUnit takes a unit of bytes off a number.
func cutUnit(number string) (digits string, bytes float64) {
	for _, unit := range sizeUnits {
		if digits, found := strings.CutSuffix(number, unit.suffix); found {
			return strings.TrimSpace(digits), float64(unit.bytes)
		}
	}
	return number, 1
}

// checkDefault reports a default TTL that no caller could ask for.
func (d *decoder) checkDefault(n ast.Node, out *Namespace) {
	ttl := out.WithDefaults().TTLDefault
	if err := limits.New(out.Limits).CheckTTL(ttl); err != nil {
		shown := ttl.String()
		if ttl == multicastregistry.NoExpiry {
			shown = "no expiry"
		}
		d.atf(n, "limits: the namespace's ttl_default (%s) is not within them: min_ttl %s, max_ttl %s; set "+
			"backend_slots.registry.ttl_default", shown, out.Limits.MinTTL, out.Limits.MaxTTL)
	}
}

// rateText returns a rate as rate reads it, to the last digit.
func rateText(r limits.Rate) string { return strconv.FormatFloat(r.PerSecond, 'g', -1, 64) + "/s" }
