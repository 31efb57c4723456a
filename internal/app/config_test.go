package app_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/mailbox"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/replica"
	"github.com/prism-data-layer/prism/patterns/nats"
	"github.com/prism-data-layer/prism/patterns/redis"
)

const examples = "../../examples"

// What examples/default.yaml spells out is what runs without a file.
func TestDefaultFile(t *testing.T) {
	got, err := app.Load(filepath.Join(examples, "default.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, app.Default()) {
		t.Errorf("got\n%+v, want\n%+v", got, app.Default())
	}
}

// The options that default.yaml only mentions are real ones.
func TestDefaultFileUncommented(t *testing.T) {
	src, err := os.ReadFile(filepath.Join(examples, "default.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(src)) {
		for _, option := range []string{"max_identities:", "buffer:", "durability:", "  type: memory", "  max_messages:", "  max_bytes:", "  max_age:", "  retention:", "  max_multicasts:", "attempt_timeout:"} {
			line = strings.Replace(line, "# "+option, option, 1)
		}
		lines = append(lines, line)
	}
	got, err := app.Parse("default.yaml", []byte(strings.Join(lines, "")))
	if err != nil {
		t.Fatal(err)
	}
	n := got.Namespaces[0]
	if n.Registry.Memory.MaxIdentities == 0 || n.Messaging.Memory.Buffer != mailbox.DefaultBuffer || n.Durability.Type != "memory" || n.AttemptTimeout != time.Second ||
		n.Durability.Memory != (memory.DurabilityConfig{
			MaxMessages: memory.DefaultMaxMessages, MaxBytes: memory.DefaultMaxBytes, MaxAge: memory.DefaultMaxAge,
			Retention: memory.DefaultRetention, MaxMulticasts: memory.DefaultMaxMulticasts,
		}) {
		t.Errorf("got %+v", n)
	}
}

// specified is the specification's own example, word for word.
func specified(t testing.TB) []byte {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(examples, "redis-nats.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func TestSpecifiedFile(t *testing.T) {
	got, err := app.Parse("presence.yaml", specified(t))
	if err != nil {
		t.Fatal(err)
	}
	n := got.Namespaces[0]
	if n.Namespace != "presence" || n.TTLDefault != 5*time.Minute || n.Delivery != multicastregistry.AtMostOnce || n.Durability.Type != "" ||
		n.Registry.Type != "redis" || n.Registry.Redis.Conn.Host != "localhost:6379" ||
		n.Messaging.Type != "nats" || !slices.Equal(n.Messaging.NATS.Conn.Servers, []string{"nats://localhost:4222"}) {
		t.Errorf("got %+v", n)
	}
	if !reflect.DeepEqual(got.Listen, app.Default().Listen) || got.DrainTimeout != app.DefaultDrainTimeout {
		t.Errorf("got %+v", got)
	}
}

// Every example is sound, and what it only mentions in comments, key by key, is legal too.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(examples, "*.yaml"))
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		got, err := app.Load(file)
		if err != nil {
			t.Error(err)
			continue
		}
		again, err := app.Parse("again", []byte(got.YAML()))
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%s, written out and read again: %v\n%s", file, err, got.YAML())
		}
	}
}

// slots is a namespace with these slots.
func slots(registry, messaging string) string {
	return "namespaces:\n  - name: a\n    pattern: multicast-registry\n    backend_slots:\n      registry: " + registry +
		"\n      messaging: " + messaging + "\n"
}

func TestRedisAndNATSOptions(t *testing.T) {
	got, err := app.Parse("f", []byte(slots(
		`{type: redis, addresses: ["a:1", b], cluster: true, username: u, password: p, tls: {ca: ca.pem, cert: c.pem, key: k.pem, server_name: s, insecure: true}, `+
			`timeout: 3s, max_identities: 7, shards: 4, change_log: 100, enumerate: scan, max_staleness: 9s, replica_max_bytes: 3GiB, ttl_default: 1m}`,
		`{type: nats, servers: ["nats://a:1", "nats://b:2"], user: u, password_file: f, tls: true, inbox_prefix: _IN, timeout: 2s, buffer: 9}`)))
	if err != nil {
		t.Fatal(err)
	}
	r, m := got.Namespaces[0].Registry.Redis, got.Namespaces[0].Messaging.NATS
	if c := r.Conn; !slices.Equal(c.Addresses, []string{"a:1", "b"}) || !c.Cluster || c.Username != "u" || c.Password != "p" || c.Timeout != 3*time.Second ||
		*c.TLS != (redis.TLS{CA: "ca.pem", Cert: "c.pem", Key: "k.pem", ServerName: "s", Insecure: true}) ||
		r.MaxIdentities != 7 || r.Shards != 4 || r.ChangeLog != 100 || got.Namespaces[0].Registry.Enumerate != "scan" ||
		got.Namespaces[0].Registry.Replica != (replica.Config{MaxStaleness: 9 * time.Second, MaxBytes: 3 << 30}) {
		t.Errorf("got %+v", r)
	}
	if c := m.Conn; len(c.Servers) != 2 || c.User != "u" || c.PasswordFile != "f" || *c.TLS != (nats.TLS{}) || c.InboxPrefix != "_IN" ||
		c.Timeout != 2*time.Second || m.Buffer != 9 || c.Embedded {
		t.Errorf("got %+v", m)
	}
	if again, err := app.Parse("again", []byte(got.YAML())); err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("written out and read again: %v\n%s", err, got.YAML())
	}
	other, err := app.Parse("f", []byte(slots(
		`{type: nats, embedded: true, listen: "127.0.0.1:0", store_dir: /tmp/x, replicas: 1, storage: file, change_log: 5000}`,
		`{type: redis, host: h, sentinel: {master: m, username: su, password: sp}, password_file: pf, database: 3, buffer: 8}`)))
	if err != nil {
		t.Fatal(err)
	}
	n, x := other.Namespaces[0].Registry.NATS, other.Namespaces[0].Messaging.Redis
	if !n.Conn.Embedded || n.Conn.Listen != "127.0.0.1:0" || n.Conn.StoreDir != "/tmp/x" || n.Replicas != 1 || n.Storage != nats.StorageFile || n.ChangeLog != 5000 {
		t.Errorf("got %+v", n)
	}
	if x.Conn.Sentinel != (redis.Sentinel{Master: "m", Username: "su", Password: "sp"}) || x.Conn.PasswordFile != "pf" || x.Conn.Database != 3 || x.Buffer != 8 {
		t.Errorf("got %+v", x)
	}
	if again, err := app.Parse("again", []byte(other.YAML())); err != nil || !reflect.DeepEqual(again, other) {
		t.Errorf("written out and read again: %v\n%s", err, other.YAML())
	}
}

func TestDurabilityOptionsOfRedis(t *testing.T) {
	got, err := app.Parse("f", []byte(slots("{type: memory}", "{type: memory}")+
		"      durability: {type: redis, host: h, username: u, password: s3cret, max_messages: 1, max_bytes: 2KiB, max_age: 3, retention: 4m, max_multicasts: 5}\n"))
	if err != nil {
		t.Fatal(err)
	}
	q := got.Namespaces[0].Durability.Redis
	if q.Conn.Host != "h" || q.MaxMessages != 1 || q.MaxBytes != 2048 || q.MaxAge != 3*time.Second || q.Retention != 4*time.Minute || q.MaxMulticasts != 5 {
		t.Errorf("got %+v", q)
	}
	if again, err := app.Parse("again", []byte(got.YAML())); err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("written out and read again: %v\n%s", err, got.YAML())
	}
	if shown := got.Masked().YAML(); strings.Contains(shown, "s3cret") || strings.Count(shown, "REDACTED") != 1 {
		t.Errorf("shown is\n%s", shown)
	}
}

func TestDurabilityOptionsOfNATS(t *testing.T) {
	got, err := app.Parse("f", []byte(slots("{type: memory}", "{type: memory}")+
		"      durability: {type: nats, servers: [\"nats://u:s3cret@n:1\"], user: u, password: s3cret, replicas: 3, storage: file, max_messages: 1, max_bytes: 2, max_age: 3, retention: 4, max_multicasts: 5}\n"))
	if err != nil {
		t.Fatal(err)
	}
	q := got.Namespaces[0].Durability.NATS
	if q.Conn.User != "u" || q.Replicas != 3 || q.Storage != nats.StorageFile || q.MaxMessages != 1 || q.MaxBytes != 2 || q.MaxAge != 3*time.Second || q.Retention != 4*time.Second || q.MaxMulticasts != 5 {
		t.Errorf("got %+v", q)
	}
	if again, err := app.Parse("again", []byte(got.YAML())); err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("written out and read again: %v\n%s", err, got.YAML())
	}
	if shown := got.Masked().YAML(); strings.Contains(shown, "s3cret") || strings.Count(shown, "REDACTED") != 2 {
		t.Errorf("shown is\n%s", shown)
	}
}

// The order of keys means nothing; a name that is at fault is reported once.
func TestNameBehindTheSlots(t *testing.T) {
	const embedded = "{type: nats, embedded: true}"
	src := "namespaces:\n  - backend_slots:\n      registry: " + embedded + "\n      messaging: " + embedded + "\n      durability: " + embedded + "\n    pattern: multicast-registry\n"
	if got, err := app.Parse("f", []byte(src+"    name: b\n")); err != nil || got.Namespaces[0].Namespace != "b" {
		t.Errorf("got %+v, %v", got.Namespaces, err)
	}
	for name, want := range map[string]string{"": "f:2:5: namespaces[0].name is missing", "    name: B\n": `f:7:11: name: "B" is not a namespace: `} {
		if _, err := app.Parse("f", []byte(src+name)); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// What people are shown holds no secret, and neither do problems.
func TestSecretsAreMasked(t *testing.T) {
	got, err := app.Parse("f", []byte(slots(
		`{type: redis, host: h, username: u, password: s3cret, sentinel: {master: m, password: s3cret}}`,
		`{type: nats, servers: ["nats://u:s3cret@a:1"]}`)))
	if err != nil {
		t.Fatal(err)
	}
	shown := got.Masked().YAML()
	if strings.Contains(shown, "s3cret") || strings.Count(shown, "REDACTED") != 3 || !strings.Contains(got.YAML(), "s3cret") {
		t.Errorf("shown is\n%s", shown)
	}
	if n := got.Namespaces[0]; n.Registry.Redis.Conn.Password != "s3cret" || !strings.Contains(n.Messaging.NATS.Conn.Servers[0], "s3cret") {
		t.Error("masking has changed the configuration")
	}
	_, err = app.Parse("f", []byte(slots("{type: redis, host: h, password: 12345678}", "{type: nats, servers: [a], token: 12345678}")))
	if err == nil || strings.Contains(err.Error(), "12345678") || strings.Count(err.Error(), "a number needs quotes") != 2 {
		t.Errorf("got %v", err)
	}
}

func TestSlotProblems(t *testing.T) {
	const memory = "{type: memory}"
	for name, row := range map[string]struct{ registry, messaging, want string }{
		"redis without a host":   {"{type: redis}", memory, "backend_slots.registry.host: is required"},
		"two places":             {"{type: redis, host: a, addresses: [b]}", memory, "backend_slots.registry.addresses: stands in place of host"},
		"a cluster has one db":   {"{type: redis, host: a, cluster: true, database: 1}", memory, "backend_slots.registry.database: must be 0"},
		"a negative db":          {"{type: redis, host: a, database: -1}", memory, "backend_slots.registry.database: -1 is out of range; legal values: 0 to 65536"},
		"too many shards":        {"{type: redis, host: a, shards: 2000}", memory, "backend_slots.registry.shards: 2000 is out of range"},
		"an unknown evaluation":  {"{type: redis, host: a, enumerate: magic}", memory, `backend_slots.registry.enumerate: "magic" is not possible; legal values: replica, native, scan`},
		"an option of another":   {"{type: redis, host: a, servers: [b]}", memory, "unknown key backend_slots.registry.servers"},
		"tls: false":             {"{type: redis, host: a, tls: false}", memory, "backend_slots.registry.tls: false is not possible"},
		"a bad tls":              {"{type: redis, host: a, tls: {cert: c}}", memory, "backend_slots.registry.tls/key"},
		"nats without servers":   {memory, "{type: nats}", "backend_slots.messaging.servers:"},
		"embedded and elsewhere": {memory, "{type: nats, embedded: true, servers: [a]}", "backend_slots.messaging.servers: name servers elsewhere"},
		"listen without it":      {memory, "{type: nats, servers: [a], listen: 'a:1'}", "backend_slots.messaging.listen: is for the server in this process"},
		"store without it":       {memory, "{type: nats, servers: [a], store_dir: x}", "backend_slots.messaging.store_dir: is for the server in this process"},
		"embedded with password": {memory, "{type: nats, embedded: true, token: x}", "backend_slots.messaging.embedded: the server in this process asks nobody"},
		"replicas of one server": {"{type: nats, embedded: true, replicas: 3}", memory, "backend_slots.registry.replicas: the server in this process is one"},
		"not a truth":            {memory, "{type: nats, embedded: yes please}", `backend_slots.messaging.embedded: expected true or false, got "yes please"`},
		"not a list":             {memory, "{type: nats, servers: a}", `backend_slots.messaging.servers: expected a list, got "a"`},
		"an unknown durability":  {memory, memory + "\n      durability: {type: kafka}", `backend_slots.durability.type: "kafka" is not possible; legal values: memory, `},
		"durability elsewhere":   {memory, memory + "\n      durability: {type: redis}", "backend_slots.durability.host: is required"},
		"durability of another":  {memory, memory + "\n      durability: {type: memory, host: h}", "unknown key backend_slots.durability.host; legal keys: type, max_messages, max_bytes, max_age, retention, max_multicasts"},
		"durability replicas":    {memory, memory + "\n      durability: {type: nats, embedded: true, replicas: 3}", "backend_slots.durability.replicas: the server in this process is one"},
		"durability storage":     {memory, memory + "\n      durability: {type: nats, embedded: true, storage: tape}", `backend_slots.durability.storage: "tape" is not possible; legal values: file, memory`},
		"two secrets":            {memory, "{type: nats, servers: [a], token: x, nkey: y}", "backend_slots.messaging."},
	} {
		_, err := app.Parse("f", []byte(slots(row.registry, row.messaging)))
		if err == nil || !strings.Contains(err.Error(), row.want) || !strings.HasPrefix(err.Error(), "f:") {
			t.Errorf("%s: got %v, want %s", name, err, row.want)
		}
	}
}

// namespace is a sound namespace, with lines put in where %s stands.
func namespace(extra string) string {
	return "namespaces:\n  - name: a\n    pattern: multicast-registry\n" + extra +
		"    backend_slots:\n      registry: {type: memory}\n      messaging: {type: memory}\n"
}

func TestProblems(t *testing.T) {
	const slots = "    pattern: multicast-registry\n    backend_slots: {registry: {type: memory}, messaging: {type: memory}}\n"
	for name, row := range map[string]struct{ src, want string }{
		"empty":                 {"", "1:1: the file is empty; legal keys: listen, tls, auth, insecure, audit_log, tracing, startup_timeout, drain_timeout, namespaces"},
		"only comments":         {"# nothing\n", "1:1: the file is empty; legal keys: listen, tls, auth, insecure, audit_log, tracing, startup_timeout, drain_timeout, namespaces"},
		"null":                  {"~\n", "1:1: the file: expected a mapping, got nothing"},
		"a list":                {"- a\n", "1:1: the file: expected a mapping, got a list"},
		"text":                  {"hello\n", `1:1: the file: expected a mapping, got "hello"`},
		"tabs":                  {"listen:\n\tgrpc: :1\n", "2:1: a tab cannot indent YAML; use spaces"},
		"broken":                {"listen: [1\n", "1:9: sequence end token ']' not found"},
		"not UTF-8":             {"a: \xff\n", "1:1: is not UTF-8 text"},
		"two documents":         {namespace("") + "---\n" + namespace(""), "8:1: a second document begins here; a configuration is one document, so remove the ---"},
		"no namespaces":         {"listen: {grpc: ':1'}\n", "1:1: namespaces is missing"},
		"unknown key":           {"listn: {}\n" + namespace(""), "1:1: unknown key listn; did you mean listen? legal keys: listen, tls, auth, insecure, audit_log, tracing, startup_timeout, drain_timeout, namespaces"},
		"unknown key inside":    {"listen: {grcp: ':1', x: 1}\n" + namespace(""), "1:10: unknown key listen.grcp; did you mean grpc? legal keys: grpc, http, hosts, admin\n1:22: unknown key listen.x; legal keys: grpc, http, hosts, admin"},
		"a key twice":           {"drain_timeout: 1\ndrain_timeout: 2\n" + namespace(""), "2:1: drain_timeout is given twice"},
		"an inner key twice":    {namespace("    timeout: 1\n    timeout: 2\n"), "5:5: namespaces[0].timeout is given twice"},
		"a number as key":       {"1: 2\n" + namespace(""), "1:1: keys must be plain text"},
		"a merge key":           {"<<: {a: 1}\n" + namespace(""), "1:1: keys must be plain text"},
		"an alias":              {"listen: &l {grpc: ':1'}\n" + namespace(""), "1:9: listen: expected a mapping, got an anchor or alias, which are not supported here"},
		"a tag":                 {"drain_timeout: !!str 5\n" + namespace(""), `1:16: drain_timeout: expected seconds as a number, or a duration such as "5s", got a tag, which are not supported here`},
		"address":               {"listen: {grpc: 8980, http: localhost}\n" + namespace(""), "1:16: listen.grpc: expected host:port, such as 127.0.0.1:8980 or :8980, got the number 8980\n1:28: listen.http: expected host:port, such as 127.0.0.1:8980 or :8980, got \"localhost\""},
		"port":                  {"listen: {grpc: 'localhost:65536'}\n" + namespace(""), `1:16: listen.grpc: expected host:port, such as 127.0.0.1:8980 or :8980, got "localhost:65536"`},
		"duration":              {"drain_timeout: soon\n" + namespace(""), `1:16: drain_timeout: expected seconds as a number, or a duration such as "5s", got "soon"`},
		"duration of nothing":   {"drain_timeout:\n" + namespace(""), `1:15: drain_timeout: expected seconds as a number, or a duration such as "5s", got nothing`},
		"duration of zero":      {"drain_timeout: 0\n" + namespace(""), "1:16: drain_timeout: 0 is out of range; legal values: 1ms to 876000h (100 years)"},
		"negative duration":     {"drain_timeout: -5s\n" + namespace(""), "1:16: drain_timeout: -5s is out of range; legal values: 1ms to 876000h (100 years)"},
		"endless duration":      {"drain_timeout: 1.0e30\n" + namespace(""), "1:16: drain_timeout: 1.0e30 is out of range; legal values: 1ms to 876000h (100 years)"},
		"infinite duration":     {"drain_timeout: .inf\n" + namespace(""), `1:16: drain_timeout: expected seconds as a number, or a duration such as "5s", got the number .inf`},
		"true":                  {"drain_timeout: true\n" + namespace(""), `1:16: drain_timeout: expected seconds as a number, or a duration such as "5s", got a truth value`},
		"no list":               {"namespaces: {name: a}\n", "1:13: namespaces: expected a list, got a mapping"},
		"empty list":            {"namespaces: []\n", "1:13: namespaces: is empty; at least one is needed"},
		"an empty namespace":    {"namespaces:\n  - a\n", `2:5: namespaces[0]: expected a mapping, got "a"`},
		"nothing in it":         {"namespaces:\n  - name: a\n", "2:5: namespaces[0].pattern is missing\n2:5: namespaces[0].backend_slots is missing"},
		"bad name":              {"namespaces:\n  - name: Ä b\n" + slots, `2:11: name: "Ä b" is not a namespace: 1 to 63 lower-case letters, digits, '-' and '_', starting with a letter or digit`},
		"a number as name":      {"namespaces:\n  - name: 5\n" + slots, "2:11: name: expected text, got the number 5"},
		"a name twice":          {"namespaces:\n  - name: a\n" + slots + "  - name: a\n" + slots, `5:11: name: namespace "a" is given twice`},
		"pattern":               {"namespaces:\n  - name: a\n    pattern: pubsub\n    backend_slots: {registry: {type: memory}, messaging: {type: memory}}\n", `3:14: pattern: "pubsub" is not possible; legal values: multicast-registry`},
		"no type":               {"namespaces:\n  - name: a\n    pattern: multicast-registry\n    backend_slots: {registry: {}, messaging: {type: [memory]}}\n", "4:31: backend_slots.registry.type is missing\n4:53: backend_slots.messaging.type: a list is not possible; legal values: memory, nats, redis"},
		"no slots":              {"namespaces:\n  - name: a\n    pattern: multicast-registry\n    backend_slots: {registrar: {type: memory}}\n", "4:20: backend_slots.registry is missing\n4:20: backend_slots.messaging is missing\n4:21: unknown key backend_slots.registrar; did you mean registry? legal keys: registry, messaging, durability"},
		"a slot of text":        {"namespaces:\n  - name: a\n    pattern: multicast-registry\n    backend_slots: {registry: memory, messaging: {type: memory}}\n", `4:31: backend_slots.registry: expected a mapping, got "memory"`},
		"a type twice":          {"namespaces:\n  - name: a\n    pattern: multicast-registry\n    backend_slots: {registry: {type: memory, type: memory}, messaging: {type: memory}}\n", "4:46: backend_slots.registry.type is given twice"},
		"an option elsewhere":   {"namespaces:\n  - name: a\n    pattern: multicast-registry\n    backend_slots: {registry: {type: memory, host: x}, messaging: {type: memory, ttl_default: 5}}\n", "4:46: unknown key backend_slots.registry.host; legal keys: type, ttl_default, max_identities\n4:82: unknown key backend_slots.messaging.ttl_default; legal keys: type, delivery, buffer"},
		"with an unknown type":  {"namespaces:\n  - name: a\n    pattern: multicast-registry\n    backend_slots: {registry: {type: etcd, ttl_default: x, host: y}, messaging: {type: memory}}\n", "4:38: backend_slots.registry.type: \"etcd\" is not possible; legal values: memory, nats, redis\n4:57: backend_slots.registry.ttl_default: expected seconds as a number, a duration such as \"5m\", or \"never\", got \"x\""},
		"delivery":              {"namespaces:\n  - name: a\n    pattern: multicast-registry\n    backend_slots: {registry: {type: memory}, messaging: {type: memory, delivery: maybe}}\n", `4:83: backend_slots.messaging.delivery: "maybe" is not possible; legal values: at-most-once, at-least-once, exactly-once`},
		"filter limits":         {namespace("    filter: {max_depth: 65, max_clauses: 0, max_in_values: x, max_regex_bytes: -1}\n"), "4:25: filter.max_depth: 65 is out of range; legal values: 1 to 64\n4:42: filter.max_clauses: 0 is out of range; legal values: 1 to 10000\n4:60: filter.max_in_values: expected a whole number, got \"x\"\n4:80: filter.max_regex_bytes: -1 is out of range; legal values: 1 to 4096"},
		"numbers in disguise":   {namespace("    filter: {max_depth: 0x5, max_clauses: 010, max_in_values: 1.5}\n"), "4:25: filter.max_depth: expected a whole number, got the number 0x5\n4:43: filter.max_clauses: expected a whole number, got the number 010\n4:63: filter.max_in_values: expected a whole number, got the number 1.5"},
		"retries":               {namespace("    retry_attempts: 21\n    retry_delay: 0\n    attempt_timeout: x\n"), "4:21: retry_attempts: 21 is out of range; legal values: 1 to 20\n5:18: retry_delay: 0 is out of range; legal values: 1ms to 876000h (100 years)\n6:22: attempt_timeout: expected seconds as a number, or a duration such as \"5s\", got \"x\""},
		"max_payload":           {namespace("    max_payload: 65MiB\n"), "4:18: max_payload: 65MiB is out of range; legal values: 1 to 67108864"},
		"max_payload in text":   {namespace("    max_payload: much\n"), `4:18: max_payload: expected bytes as a number, or with a unit such as "512KiB" (B, KB, KiB, MB, MiB, GB, GiB), got "much"`},
		"a very long value":     {"drain_timeout: " + strings.Repeat("x", 100) + "\n" + namespace(""), `1:16: drain_timeout: expected seconds as a number, or a duration such as "5s", got "` + strings.Repeat("x", 60) + `…"`},
		"a block of text":       {"listen: |\n  text\n" + namespace(""), "1:9: listen: expected a mapping, got a block of text"},
		"problems in order":     {"x: 1\n" + namespace("    timeout: x\n") + "y: 2\n", "1:1: unknown key x; legal keys: listen, tls, auth, insecure, audit_log, tracing, startup_timeout, drain_timeout, namespaces\n5:14: timeout: expected seconds as a number, or a duration such as \"5s\", got \"x\"\n9:1: unknown key y; legal keys: listen, tls, auth, insecure, audit_log, tracing, startup_timeout, drain_timeout, namespaces"},
		"a file without an end": {strings.Repeat("#", 1<<18+1), "1:1: the file has 262145 bytes, at most 262144 are read"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := app.Parse("f", []byte(row.src))
			if _, ok := errors.AsType[*app.ConfigError](err); !ok {
				t.Fatalf("got %v, want a ConfigError", err)
			}
			want := "f:" + strings.ReplaceAll(row.want, "\n", "\nf:")
			if err.Error() != want {
				t.Errorf("got\n%v\nwant\n%s", err, want)
			}
		})
	}
}

func TestValues(t *testing.T) {
	src := `%YAML 1.2
---
listen:
  grpc: ":0"
  http: "[::1]:80"
drain_timeout: 1_5
namespaces:
  - name: a
    pattern: multicast-registry
    timeout: 0.25
    retry_attempts: 4
    retry_delay: 20ms
    attempt_timeout: 0.1
    max_payload: 64 KiB
    filter:
      max_depth: 6
      max_clauses: 1_000
      max_in_values: 7
      max_regex_bytes: 8
    backend_slots:
      registry: {type: memory, ttl_default: never, max_identities: 10}
      messaging:
        type: "memory"
        delivery: 'at-least-once'
        buffer: 5
      durability: {type: memory, max_messages: 3, max_bytes: 1MB, max_age: 1h30m, retention: 60, max_multicasts: 7}
  - {name: b-1, pattern: multicast-registry, backend_slots: {registry: {type: memory, ttl_default: 1500ms}, messaging: {type: memory}}}
`
	got, err := app.Parse("f", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	a, b := got.Namespaces[0], got.Namespaces[1]
	if got.Listen.GRPC != ":0" || got.Listen.HTTP != "[::1]:80" || got.DrainTimeout != 15*time.Second {
		t.Errorf("got %+v", got)
	}
	if a.Timeout != 250*time.Millisecond || a.MaxPayload != 64<<10 || a.TTLDefault != multicastregistry.NoExpiry || a.Registry.Memory.MaxIdentities != 10 || a.Messaging.Memory.Buffer != 5 || a.Delivery != multicastregistry.AtLeastOnce {
		t.Errorf("got %+v", a)
	}
	if a.Filter.Depth != 6 || a.Filter.Clauses != 1000 || a.Filter.InValues != 7 || a.Filter.RegexBytes != 8 || a.Durability.Memory != (memory.DurabilityConfig{MaxMessages: 3, MaxBytes: 1e6, MaxAge: 90 * time.Minute, Retention: time.Minute, MaxMulticasts: 7}) {
		t.Errorf("got %+v", a)
	}
	if a.RetryAttempts != 4 || a.RetryDelay != 20*time.Millisecond || a.AttemptTimeout != 100*time.Millisecond {
		t.Errorf("got %+v", a)
	}
	if b.Namespace != "b-1" || b.TTLDefault != 1500*time.Millisecond || b.Durability.Type != "" {
		t.Errorf("got %+v", b)
	}
	again, err := app.Parse("again", []byte(got.YAML()))
	if err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("written out and read again: %v\n%s", err, got.YAML())
	}
	if again, err := app.Parse("again", []byte(app.Default().YAML())); err != nil || !reflect.DeepEqual(again, app.Default()) {
		t.Errorf("the defaults written out and read again: %v\n%s", err, app.Default().YAML())
	}
}

func TestLoadWithoutFile(t *testing.T) {
	_, err := app.Load(filepath.Join(t.TempDir(), "none.yaml"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(specified(f))
	f.Add([]byte(namespace("    timeout: 5\n")))
	f.Add([]byte(app.Default().YAML()))
	for _, s := range []string{"", "a", "? a\n: b\n", "&a [*a]", "a: |\n x", "- - - a", "{{}: }", "<<: *x", "a: !!map {}", "---\n---\n", "%YAML\n---", "[", "a: 'x", "namespaces:\n- \n", "\"\\x\"", "a:\n - b\n  c"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		cfg, err := app.Parse("f", src)
		if err == nil {
			again, err := app.Parse("again", []byte(cfg.YAML()))
			if err != nil || !reflect.DeepEqual(again, cfg) {
				t.Errorf("written out and read again: %v\n%s", err, cfg.YAML())
			}
			return
		}
		var bad *app.ConfigError
		if !errors.As(err, &bad) || len(bad.Problems) == 0 {
			t.Fatalf("got %v, want problems", err)
		}
		for _, p := range bad.Problems {
			if p.Line < 1 || p.Column < 1 || p.Text == "" || !strings.HasPrefix(p.String(), fmt.Sprintf("f:%d:", p.Line)) {
				t.Errorf("problem %+v", p)
			}
		}
	})
}
