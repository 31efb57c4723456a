package app

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/prism-data-layer/prism/internal/testenv"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// everything is a Tracer that wants to know all.
type everything struct{}

func (everything) Begin(ctx context.Context, _ string) (context.Context, multicastregistry.TraceEnd) {
	return ctx, func(int, int, error) {}
}

// abilities are the optional abilities of slots that a coordinator has found: its fields that are interfaces, and what it asks
// the slots themselves.
func abilities(t *testing.T, namespace string, slots multicastregistry.Slots) (found []string) {
	t.Helper()
	c, err := multicastregistry.Open(t.Context(), defaults(namespace), slots)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fields := reflect.ValueOf(c).Elem()
	for i := range fields.NumField() {
		field, name := fields.Field(i), fields.Type().Field(i).Name
		if field.Kind() == reflect.Interface && name != "tracer" && !field.IsNil() {
			found = append(found, name)
		}
	}
	// Of those that are asked for later, the slots as they were opened must be what is asked.
	bare := fields.FieldByName("bare")
	for _, slot := range []string{"Registry", "Messaging", "Durability"} {
		if held := bare.FieldByName(slot); !held.IsNil() {
			found = append(found, slot+" "+held.Elem().Type().String())
		}
	}
	return found
}

// TestTracedSlotsHaveTheirAbilities fills slots with each type of backend in each of its ways, and compares what a coordinator
// finds in them with and without a Tracer.
func TestTracedSlotsHaveTheirAbilities(t *testing.T) {
	redis := "type: redis, host: " + testenv.Redis(t).Addr
	nats := "type: nats, servers: ['" + testenv.NATS(t).URL + "']"
	all := make(map[string]bool)
	for name, slots := range map[string]string{
		"memory":         "{registry: {type: memory}, messaging: {type: memory}}",
		"memory durable": "{registry: {type: memory}, messaging: {type: memory}, durability: {type: memory}}",
		"redis copied":   "{registry: {" + redis + "}, messaging: {" + redis + "}, durability: {" + redis + "}}",
		"redis native":   "{registry: {" + redis + ", enumerate: native}, messaging: {" + redis + "}}",
		"redis scan":     "{registry: {" + redis + ", enumerate: scan}, messaging: {" + redis + "}}",
		"redis shards":   "{registry: {" + redis + ", shards: 2, enumerate: native}, messaging: {type: memory}}",
		"nats copied":    "{registry: {" + nats + "}, messaging: {" + nats + "}, durability: {" + nats + "}}",
		"nats scan":      "{registry: {" + nats + ", enumerate: scan}, messaging: {" + nats + "}}",
	} {
		t.Run(name, func(t *testing.T) {
			namespace := testenv.Prefix(t)
			cfg, err := Parse("f", []byte("namespaces: [{name: "+namespace+", pattern: multicast-registry, backend_slots: "+slots+"}]"))
			if err != nil {
				t.Fatal(err)
			}
			logger := slog.New(slog.DiscardHandler)
			open, err := (&running{connections: newConnections(logger), logger: logger}).next(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := open.closeBut(&running{}); err != nil {
					t.Error(err)
				}
			}()
			filled := open.namespaces[0].on
			bare := abilities(t, namespace, filled)
			filled.Tracer = everything{}
			if traced := abilities(t, namespace, filled); !slices.Equal(traced, bare) {
				t.Errorf("traced\n%v, bare\n%v", traced, bare)
			}
			for _, ability := range bare {
				all[ability] = true
			}
		})
	}
	for _, ability := range []string{
		"head", "counter", "prober", "finder", "querier", "watcher", "copied", "fielder", "follower", "ledger", "recaller",
		"backlog",
	} {
		if !all[ability] {
			t.Errorf("no slot has the ability %q: this test looks at nothing", ability)
		}
	}
}

// TestTracingOptions reads the section, writes it, and shows it to people.
func TestTracingOptions(t *testing.T) {
	const end = "\nnamespaces: [{name: a, pattern: multicast-registry, backend_slots: {registry: {type: memory}, messaging: {type: memory}}}]\n"
	got, err := Parse("f", []byte("tracing: {endpoint: 'https://c:4317', headers: {Authorization: s3cret, x-org: 7}, "+
		"sample_ratio: 0.25, service_name: edge}"+end))
	if err != nil {
		t.Fatal(err)
	}
	if c := got.Tracing; c.Endpoint != "https://c:4317" || *c.SampleRatio != 0.25 || c.ServiceName != "edge" ||
		!reflect.DeepEqual(c.Headers, map[string]string{"authorization": "s3cret", "x-org": "7"}) {
		t.Errorf("got %+v", c)
	}
	for _, cfg := range []string{got.YAML(), "tracing: {}" + end, "tracing: {sample_ratio: 0}" + end} {
		one, err := Parse("one", []byte(cfg))
		if err != nil {
			t.Fatal(err)
		}
		if two, err := Parse("two", []byte(one.YAML())); err != nil || !reflect.DeepEqual(two, one) {
			t.Errorf("written out and read again: %v\n%s", err, one.YAML())
		}
	}
	if shown := got.Masked().YAML(); strings.Contains(shown, "s3cret") || got.Tracing.Headers["authorization"] != "s3cret" {
		t.Errorf("shown is\n%s", shown)
	}
	for given, want := range map[string]string{
		"tracing: on":                                "f:1:10: tracing: expected a mapping, got",
		"tracing: {endpint: x}":                      "f:1:11: unknown key tracing.endpint; did you mean endpoint?",
		"tracing: {endpoint: 'collector:4318'}":      "tracing.endpoint: must be a URL such as http://127.0.0.1:4318",
		"tracing: {endpoint: 'http://u:p@c'}":        "tracing.endpoint: must be a URL",
		"tracing: {endpoint: 'http://c/v1/traces/'}": "tracing.endpoint: must be without /v1/traces, which is added",
		"tracing: {sample_ratio: 1.5}":               "tracing.sample_ratio: 1.5 is out of range; legal values: 0 to 1",
		"tracing: {sample_ratio: .nan}":              "tracing.sample_ratio: ",
		"tracing: {sample_ratio: all}":               "tracing.sample_ratio: expected a number from 0 to 1, got \"all\"",
		"tracing: {headers: {'a b': c}}":             "tracing.headers: \"a b\" is not a name of a header",
		"tracing: {headers: {a: \"s3cret\\r\\n\"}}":  "tracing.headers.a: has characters that no header can have",
		"tracing: {headers: {a: [s3cret]}}":          "tracing.headers.a: expected text",
		"tracing: {headers: {a: b, A: c}}":           "tracing.headers: A is given twice",
	} {
		_, err := Parse("f", []byte(given+end))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %s", given, err, want)
		}
	}
}
