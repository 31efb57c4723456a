package multicastregistry_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// devices registers three devices with fields of many kinds.
func devices(t *testing.T, c *mr.Coordinator) {
	t.Helper()
	for id, metadata := range map[string]map[string]any{
		"dev-1": {"battery": 0.1, "room": "lab", "sensor": map[string]any{"temp": 20}, "tags": []any{"gps", "lift"}, "gone": nil, "mixed": 1},
		"dev-2": {"battery": 0.5, "room": "lab", "sensor": map[string]any{"temp": 21}, "tags": []any{"gps"}, "on": true, "mixed": "x"},
		"dev-3": {"battery": 0.9, "room": "hall", "numbers": []any{1, 2}, "mixed": []any{}, "firmware": "1.2.3"},
	} {
		_, err := c.Register(t.Context(), mr.Registration{ID: id, Metadata: metadata})
		noError(t, err)
	}
}

// lines shows warnings, one on a line.
func lines(warnings []mr.Warning) string {
	var all []string
	for _, w := range warnings {
		kind := map[mr.WarningKind]string{mr.UnknownField: "unknown", mr.TypeMismatch: "type"}[w.Kind]
		all = append(all, fmt.Sprintf("%s %s %s: %s", kind, w.Field, w.Pointer, w.Message))
	}
	return strings.Join(all, "\n")
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	index, scan := open(t, mr.Config{}, memorySlots()), memorySlots()
	scan.Registry = struct{ mr.Registry }{scan.Registry}
	plain := open(t, mr.Config{}, scan)
	devices(t, index)
	devices(t, plain)
	for source, want := range map[string]string{
		`{}`:                                     ``,
		`{"room": "nowhere", "battery.lt": 0.2}`: ``,
		`{"batery": 1}`:                          `unknown batery /batery: no identity has the field "batery"; did you mean "battery"?`,
		`{"batery": {"$lt": 1, "$gt": 0}}`:       `unknown batery /batery/$lt: no identity has the field "batery"; did you mean "battery"?`,
		`{"temp.gt": 20}`:                        `unknown temp /temp.gt: no identity has the field "temp"; did you mean "sensor.temp"?`,
		`{"weather": "fine"}`:                    `unknown weather /weather: no identity has the field "weather"`,
		`{"weather": {"$exists": true}}`:         `unknown weather /weather/$exists: no identity has the field "weather"`,
		`{"weather": {"$type": "string"}}`:       `unknown weather /weather/$type: no identity has the field "weather"`,
		`{"a\u001b[2J": 1}`:                      `unknown a` + "\x1b" + `[2J /a` + "\x1b" + `[2J: no identity has the field "a\x1b[2J"`,
		// What asks for what is not there is meant, unless there is something that looks like it.
		`{"weather": {"$exists": false}}`:        ``,
		`{"weather": {"$ne": "bad"}}`:            ``,
		`{"weather": {"$nin": ["bad"]}}`:         ``,
		`{"weather": {"$not": {"$eq": "bad"}}}`:  ``,
		`{"$not": {"weather": "bad"}}`:           ``,
		`{"$not": {"weather": {"$ne": "good"}}}`: `unknown weather /$not/weather/$ne: no identity has the field "weather"`,
		`{"$not": {"$not": {"weather": "bad"}}}`: `unknown weather /$not/$not/weather: no identity has the field "weather"`,
		`{"rooms": {"$exists": false}}`:          `unknown rooms /rooms/$exists: no identity has the field "rooms"; did you mean "room"?`,
		`{"rooms": {"$ne": "lab"}}`:              `unknown rooms /rooms/$ne: no identity has the field "rooms"; did you mean "room"?`,
		`{"$or": [{"room": "x"}, {"rom": "x"}]}`: `unknown rom /$or/1/rom: no identity has the field "rom"; did you mean "room"?`,
		// Types.
		`{"battery": {"$lt": "0.2"}}`:       `type battery /battery/$lt: $lt looks for a string, and the field "battery" is never one: it is a number`,
		`{"battery": "0.1"}`:                `type battery /battery: $eq looks for a string, and the field "battery" is never one: it is a number`,
		`{"battery": {"$ne": "0.1"}}`:       `type battery /battery/$ne: $ne looks for a string, and the field "battery" is never one: it is a number`,
		`{"$not": {"battery": "0.1"}}`:      `type battery /$not/battery: $eq looks for a string, and the field "battery" is never one: it is a number`,
		`{"battery": {"$regex": "^0"}}`:     `type battery /battery/$regex: $regex looks for a string, and the field "battery" is never one: it is a number`,
		`{"battery": {"$semver": "1.x"}}`:   `type battery /battery/$semver: $semver looks for a string, and the field "battery" is never one: it is a number`,
		`{"battery": {"$in": ["a", true]}}`: `type battery /battery/$in: $in looks for a bool or a string, and the field "battery" is never one: it is a number`,
		`{"battery": {"$contains": 1}}`: `type battery /battery/$contains: $contains looks for an array with a number in it, ` +
			`and the field "battery" is never one: it is a number`,
		`{"tags": {"$contains": 1}}`: `type tags /tags/$contains: $contains looks for an array with a number in it, ` +
			`and the field "tags" is never one: it is an array of strings`,
		`{"tags": {"$gt": 1}}`:           `type tags /tags/$gt: $gt looks for a number, and the field "tags" never is or has one: it is an array of strings`,
		`{"mixed": true}`:                `type mixed /mixed: $eq looks for a bool, and the field "mixed" never is or has one: it is a number, a string or an array`,
		`{"sensor": "x"}`:                `type sensor /sensor: $eq looks for a string, and the field "sensor" is never one: it is an object`,
		`{"gone": 1}`:                    `type gone /gone: $eq looks for a number, and the field "gone" is never one: it is null`,
		`{"battery": {"$in": ["a", 1]}}`: ``,
		`{"battery": {"$in": []}}`:       ``,
		`{"battery": null}`:              ``,
		`{"battery": {"$ne": null}}`:     ``,
		`{"battery": {"$type": "bool"}}`: ``,
		`{"battery": {"$exists": true}}`: ``,
		`{"tags": "gps"}`:                ``,
		`{"tags": {"$contains": "g"}}`:   ``,
		`{"room": {"$contains": "a"}}`:   ``,
		`{"tags": {"$startswith": "g"}}`: ``,
		`{"numbers": {"$contains": 3}}`:  ``,
		`{"numbers": {"$lt": 0}}`:        ``,
		`{"on": false}`:                  ``,
	} {
		page, err := index.Enumerate(t.Context(), mr.Query{Filter: parse(t, source)})
		noError(t, err)
		if got := lines(page.Warnings); got != want {
			t.Errorf("%s warns\n%s, want\n%s", source, got, want)
		}
		for name, c := range map[string]*mr.Coordinator{"index": index, "scan": plain} {
			explained, err := c.Explain(t.Context(), mr.Inquiry{Filter: parse(t, source)})
			noError(t, err)
			if got := lines(explained.Warnings); got != want {
				t.Errorf("%s explained by %s warns\n%s, want\n%s", source, name, got, want)
			}
		}
	}
}

// TestWarningsWhere tells which answers carry warnings.
func TestWarningsWhere(t *testing.T) {
	t.Parallel()
	slots := memorySlots()
	c := open(t, mr.Config{}, slots)
	odd := parse(t, `{"$or": [{"batery": 1}, {"battery.gte": 0}]}`)
	enumerate := func(c *mr.Coordinator, q mr.Query) mr.Page {
		q.Filter = odd
		page, err := c.Enumerate(t.Context(), q)
		noError(t, err)
		return page
	}
	multicast := func(r mr.Request) *mr.Result {
		r.Filter, r.Delivery = odd, mr.AtMostOnce
		result, err := c.Multicast(t.Context(), r)
		noError(t, err)
		return result
	}
	if page := enumerate(c, mr.Query{}); page.Warnings != nil {
		t.Errorf("an empty registry has no fields: %v", page.Warnings)
	}
	devices(t, c)
	first := enumerate(c, mr.Query{PageSize: 1})
	if len(first.Warnings) != 1 || !slices.Equal(first.Warnings[0].Suggestions, []string{"battery"}) {
		t.Errorf("first page: %+v", first.Warnings)
	}
	if page := enumerate(c, mr.Query{PageToken: first.NextPageToken}); page.Warnings != nil {
		t.Errorf("second page: %+v", page.Warnings)
	}
	for name, result := range map[string]*mr.Result{"multicast": multicast(mr.Request{}), "dry run": multicast(mr.Request{DryRun: true})} {
		if len(result.Warnings) != 1 || result.TargetCount != 3 {
			t.Errorf("%s: %+v", name, result)
		}
	}
	plain := slots
	plain.Registry = struct{ mr.Registry }{slots.Registry}
	if page := enumerate(open(t, mr.Config{}, plain), mr.Query{}); page.Warnings != nil || page.Total != 3 {
		t.Errorf("a registry without an index: %+v", page)
	}
}

// TestWarningsReplayed has a result that is asked for again: what its filter was like is forgotten by then.
func TestWarningsReplayed(t *testing.T) {
	t.Parallel()
	slots := memorySlots()
	slots.Durability = memory.NewDurability(memory.DurabilityConfig{})
	c := open(t, mr.Config{}, slots)
	devices(t, c)
	for replayed, want := range []int{1, 0} {
		result, err := c.Multicast(t.Context(), mr.Request{Filter: parse(t, `{"batery": 1}`), IdempotencyKey: "k"})
		noError(t, err)
		if len(result.Warnings) != want || result.Replayed != (replayed == 1) {
			t.Errorf("%+v", result)
		}
	}
}

// TestWarningsForget has fields whose last identity expires: swept or not, nobody has them from that instant on.
func TestWarningsForget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := open(t, mr.Config{}, memorySlots())
		for id, r := range map[string]mr.Registration{
			"short": {Metadata: map[string]any{"only": 1, "v": "text", "l": []any{"x"}}, TTL: time.Second},
			"long":  {Metadata: map[string]any{"v": 1, "l": []any{1}}, TTL: time.Hour},
		} {
			r.ID = id
			_, err := c.Register(t.Context(), r)
			noError(t, err)
		}
		for _, want := range []int{0, 3} {
			page, err := c.Enumerate(t.Context(), mr.Query{Filter: parse(t, `{"$or": [{"only": 1}, {"v": "x"}, {"l": "x"}]}`)})
			noError(t, err)
			if len(page.Warnings) != want {
				t.Errorf("%d warnings, want %d: %s", len(page.Warnings), want, lines(page.Warnings))
			}
			time.Sleep(time.Second) //nolint:forbidigo // synctest's clock
		}
	})
}
