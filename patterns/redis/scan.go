package redis

import (
	"context"
	_ "embed"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

const (
	// scanBudget is what a batch may cost by the estimate of lua/scan.lua, in ns: about a millisecond, about two at worst.
	scanBudget = 1_000_000
	// scanCount is how many members of the lease set a batch reads at once.
	scanCount = 64
	// fromStart is the cursor that begins a scan.
	fromStart = "0"
	// matchFields is how many fields of the reply make a match.
	matchFields = 6
)

var (
	//go:embed lua/scan.lua
	scanSource string
	scanScript = rueidis.NewLuaScriptReadOnly(reading(scanSource))
)

// Scan implements multicastregistry.Registry. It reads the lease set by cursor, which yields whatever is in it all the time,
// and with EnumerateNative filters in Redis: regex and semver aside, exactly. Redis is held for about a millisecond at a time.
func (r *Registry) Scan(ctx context.Context, match *filter.Expr) iter.Seq2[multicastregistry.Identity, error] {
	return func(yield func(multicastregistry.Identity, error) bool) {
		data := ""
		if r.cfg.Enumerate != EnumerateScan {
			data, _ = translate(match)
		}
		s := newScan(r, data, asMap)
		goOn, err := true, ctx.Err()
		for goOn && err == nil && !s.done() {
			var matches []rueidis.RedisMessage
			if matches, err = s.batch(ctx); err == nil {
				goOn, err = s.yield(ctx, matches, yield)
			}
		}
		if err != nil {
			yield(multicastregistry.Identity{}, r.conn.wrap(ctx, "scan", "", err))
		}
	}
}

// scan is the state of one scan.
type scan struct {
	registry *Registry
	decode   metadataDecoder
	filter   string // as data, empty: everything
	run      string // of the server that the cursor belongs to
	cursor   string // empty: the lease set has been read
	rest     []string
	// yielded are the members that were yielded: a cursor may lead to one again.
	yielded map[string]struct{}
}

func newScan(r *Registry, data string, decode metadataDecoder) *scan {
	return &scan{registry: r, decode: decode, filter: data, cursor: fromStart, yielded: make(map[string]struct{})}
}

func (s *scan) done() bool { return s.cursor == "" && len(s.rest) == 0 }

// batch fetches the next matches. When another server answers than before, after a failover or a restart, where the cursor
// means nothing, it has the scan begin again; what was yielded is not yielded again.
func (s *scan) batch(ctx context.Context) ([]rueidis.RedisMessage, error) {
	conn := s.registry.conn
	bounded, cancel, err := conn.bound(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	r := s.registry
	args := make([]string, 0, 6+len(s.rest))
	args = append(args, r.keys.identity, s.cursor, strconv.Itoa(scanCount), strconv.Itoa(scanBudget), s.filter, r.after)
	args = append(args, s.rest...)
	reply, err := scanScript.Exec(bounded, conn.read, []string{r.keys.leases, r.keys.head}, args).ToArray()
	if err != nil {
		return nil, err
	}
	if len(reply) != 4 {
		return nil, fmt.Errorf("%w: scan: %d elements", errReply, len(reply))
	}
	run, err := reply[0].ToString()
	if err != nil {
		return nil, err
	}
	if s.run != "" && s.run != run {
		s.run, s.cursor, s.rest = run, fromStart, nil
		return nil, nil
	}
	s.run = run
	if s.cursor, err = reply[1].ToString(); err != nil {
		return nil, err
	}
	if s.rest, err = reply[2].AsStrSlice(); err != nil {
		return nil, err
	}
	matches, err := reply[3].ToArray()
	if err == nil && len(matches)%matchFields != 0 {
		err = fmt.Errorf("%w: scan: %d fields", errReply, len(matches))
	}
	return matches, err
}

// yield hands matches on, each identity once, until the caller has had enough.
func (s *scan) yield(
	ctx context.Context, matches []rueidis.RedisMessage, yield func(multicastregistry.Identity, error) bool,
) (goOn bool, err error) {
	for ; len(matches) > 0; matches = matches[matchFields:] {
		member, err := matches[0].ToString()
		if err != nil {
			return false, err
		}
		if _, twice := s.yielded[member]; twice {
			continue
		}
		s.yielded[member] = struct{}{}
		identity, err := identityOf(member, matches[1:matchFields], s.decode)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !yield(identity, nil) {
			return false, err
		}
	}
	return true, nil
}

// identityOf reads an identity from its encoded name and the fields m, t, r, e, v.
func identityOf(
	member string, fields []rueidis.RedisMessage, decode metadataDecoder,
) (identity multicastregistry.Identity, err error) {
	var ok bool
	if identity.ID, ok = multicastregistry.DecodeName(member); !ok {
		return identity, fmt.Errorf("%w: %q is not an encoded name", errReply, member)
	}
	text, err := fields[0].ToString()
	if err != nil {
		return identity, fmt.Errorf("identity %q: metadata: %w", identity.ID, err)
	}
	if err := decode(&identity, text); err != nil {
		return identity, fmt.Errorf("%w: identity %q: %w", errReply, identity.ID, err)
	}
	var numbers [4]int64
	for i := range numbers {
		if numbers[i], err = fields[1+i].AsInt64(); err != nil {
			return identity, fmt.Errorf("%w: identity %q: %w", errReply, identity.ID, err)
		}
	}
	identity.TTL, identity.RegisteredAt = duration(numbers[0]), time.UnixMilli(numbers[1])
	identity.ExpiresAt, identity.Revision = instant(numbers[2]), multicastregistry.Revision(numbers[3])
	return identity, nil
}
