package app

import (
	"math"
	"slices"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/prism-data-layer/prism/patterns/nats"
	"github.com/prism-data-layer/prism/patterns/redis"
)

// A backend that is added later adds its keys here, a struct in config.go, a writer in yaml.go and a case in open.go.

func (d *decoder) slots(n ast.Node, out *Namespace) {
	d.mapping(n, "backend_slots",
		key{name: slotRegistry, required: true, read: func(n ast.Node) { d.registry(n, out) }},
		key{name: slotMessaging, required: true, read: func(n ast.Node) { d.messaging(n, out) }},
		key{name: slotDurability, read: func(n ast.Node) { d.durability(n, out) }},
	)
}

func (d *decoder) registry(n ast.Node, out *Namespace) {
	const what = "backend_slots." + slotRegistry + "."
	r := &out.Registry
	identities := func(to *int) key {
		return key{name: "max_identities", read: func(n ast.Node) { d.count(n, what+"max_identities", to, math.MaxInt32) }}
	}
	changes := func(to *int) key {
		return key{name: "change_log", read: func(n ast.Node) { d.count(n, what+"change_log", to, math.MaxInt32) }}
	}
	outage := func(to *time.Duration) key {
		return key{name: "outage_after", read: func(n ast.Node) { d.duration(n, what+"outage_after", to) }}
	}
	copied := func(ways ...string) []key {
		return []key{
			{name: "enumerate", read: func(n ast.Node) { d.choice(n, what+"enumerate", &r.Enumerate, ways...) }},
			{name: "max_staleness", read: func(n ast.Node) { d.duration(n, what+"max_staleness", &r.Replica.MaxStaleness) }},
			{name: "replica_max_bytes", read: func(n ast.Node) { d.size(n, what+"replica_max_bytes", &r.Replica.MaxBytes, math.MaxInt) }},
		}
	}
	d.slot(n, slotRegistry, &r.Type, map[string][]key{
		typeMemory: {identities(&r.Memory.MaxIdentities)},
		typeRedis: append(slices.Concat(d.redisKeys(what, &r.Redis.Conn), copied(enumerateReplica, enumerateNative, enumerateScan)),
			identities(&r.Redis.MaxIdentities),
			key{name: "shards", read: func(n ast.Node) { d.count(n, what+"shards", &r.Redis.Shards, redis.MaxShards) }},
			changes(&r.Redis.ChangeLog), outage(&r.Redis.OutageAfter),
		),
		typeNATS: append(slices.Concat(d.natsKeys(what, &r.NATS.Conn), d.streamKeys(what, &r.NATS.Replicas, &r.NATS.Storage),
			copied(enumerateReplica, enumerateScan)), changes(&r.NATS.ChangeLog), outage(&r.NATS.OutageAfter)),
	}, func(typ string) error { return out.Registry.validate(typ, checkedName(out.Namespace)) },
		key{name: "ttl_default", read: func(n ast.Node) { d.ttl(n, what+"ttl_default", &out.TTLDefault) }})
}

func (d *decoder) messaging(n ast.Node, out *Namespace) {
	const what = "backend_slots." + slotMessaging + "."
	m := &out.Messaging
	buffer := func(to *int) key {
		return key{name: "buffer", read: func(n ast.Node) { d.count(n, what+"buffer", to, 1<<20) }}
	}
	d.slot(n, slotMessaging, &m.Type, map[string][]key{
		typeMemory: {buffer(&m.Memory.Buffer)},
		typeRedis:  append(d.redisKeys(what, &m.Redis.Conn), buffer(&m.Redis.Buffer)),
		typeNATS:   append(d.natsKeys(what, &m.NATS.Conn), buffer(&m.NATS.Buffer)),
	}, func(typ string) error { return out.Messaging.validate(typ) }, key{name: "delivery", read: func(n ast.Node) {
		d.choice(n, what+"delivery", (*string)(&out.Delivery), modes()...)
	}})
}

func (d *decoder) durability(n ast.Node, out *Namespace) {
	const what = "backend_slots." + slotDurability + "."
	q := &out.Durability
	// bounds are what every type has.
	bounds := func(messages, bytes *int, age, retention *time.Duration, multicasts *int) []key {
		return []key{
			{name: "max_messages", read: func(n ast.Node) { d.count(n, what+"max_messages", messages, math.MaxInt32) }},
			{name: "max_bytes", read: func(n ast.Node) { d.size(n, what+"max_bytes", bytes, math.MaxInt32) }},
			{name: "max_age", read: func(n ast.Node) { d.duration(n, what+"max_age", age) }},
			{name: "retention", read: func(n ast.Node) { d.duration(n, what+"retention", retention) }},
			{name: "max_multicasts", read: func(n ast.Node) { d.count(n, what+"max_multicasts", multicasts, math.MaxInt32) }},
		}
	}
	m, r, j := &q.Memory, &q.Redis, &q.NATS
	d.slot(n, slotDurability, &q.Type, map[string][]key{
		typeMemory: bounds(&m.MaxMessages, &m.MaxBytes, &m.MaxAge, &m.Retention, &m.MaxMulticasts),
		typeRedis: append(d.redisKeys(what, &r.Conn),
			bounds(&r.MaxMessages, &r.MaxBytes, &r.MaxAge, &r.Retention, &r.MaxMulticasts)...),
		typeNATS: slices.Concat(d.natsKeys(what, &j.Conn), d.streamKeys(what, &j.Replicas, &j.Storage),
			bounds(&j.MaxMessages, &j.MaxBytes, &j.MaxAge, &j.Retention, &j.MaxMulticasts)),
	}, func(typ string) error { return out.Durability.validate(typ, checkedName(out.Namespace)) })
}

// redisKeys are the keys of a connection to Redis, which every slot on Redis has.
func (d *decoder) redisKeys(what string, c *redis.Config) []key {
	text := func(name string, to *string) key {
		return key{name: name, read: func(n ast.Node) { d.text(n, what+name, to) }}
	}
	secret := func(name string, to *string) key {
		return key{name: name, read: func(n ast.Node) { d.secret(n, what+name, to) }}
	}
	return []key{
		text("host", &c.Host),
		{name: "addresses", read: func(n ast.Node) { d.texts(n, what+"addresses", &c.Addresses) }},
		{name: "cluster", read: func(n ast.Node) { d.truth(n, what+"cluster", &c.Cluster) }},
		{name: "sentinel", read: func(n ast.Node) {
			what := what + "sentinel"
			d.mapping(n, what,
				key{name: "master", required: true, read: func(n ast.Node) { d.text(n, what+".master", &c.Sentinel.Master) }},
				key{name: "username", read: func(n ast.Node) { d.text(n, what+".username", &c.Sentinel.Username) }},
				key{name: "password", read: func(n ast.Node) { d.secret(n, what+".password", &c.Sentinel.Password) }},
			)
		}},
		text("username", &c.Username), secret("password", &c.Password), text("password_file", &c.PasswordFile),
		{name: "database", read: func(n ast.Node) { d.within(n, what+"database", &c.Database, 0, 1<<16) }},
		{name: "tls", read: func(n ast.Node) {
			if c.TLS = new(redis.TLS); !d.on(n, what+"tls") {
				d.tls(n, what+"tls", (*tlsFiles)(c.TLS))
			}
		}},
		{name: "timeout", read: func(n ast.Node) { d.duration(n, what+"timeout", &c.Timeout) }},
	}
}

// natsKeys are the keys of a connection to NATS, which every slot on NATS has.
func (d *decoder) natsKeys(what string, c *NATS) []key {
	text := func(name string, to *string) key {
		return key{name: name, read: func(n ast.Node) { d.text(n, what+name, to) }}
	}
	secret := func(name string, to *string) key {
		return key{name: name, read: func(n ast.Node) { d.secret(n, what+name, to) }}
	}
	return []key{
		{name: "servers", read: func(n ast.Node) { d.texts(n, what+"servers", &c.Servers) }},
		text("user", &c.User), secret("password", &c.Password), text("password_file", &c.PasswordFile), secret("token", &c.Token),
		text("credentials", &c.Credentials), text("nkey", &c.NKey),
		{name: "tls", read: func(n ast.Node) {
			if c.TLS = new(nats.TLS); !d.on(n, what+"tls") {
				d.tls(n, what+"tls", (*tlsFiles)(c.TLS))
			}
		}},
		text("inbox_prefix", &c.InboxPrefix),
		{name: "timeout", read: func(n ast.Node) { d.duration(n, what+"timeout", &c.Timeout) }},
		{name: "embedded", read: func(n ast.Node) { d.truth(n, what+"embedded", &c.Embedded) }},
		{name: "listen", read: func(n ast.Node) { d.address(n, what+"listen", &c.Listen) }},
		text("store_dir", &c.StoreDir),
	}
}

// streamKeys are the keys of a slot that keeps something in JetStream.
func (d *decoder) streamKeys(what string, replicas *int, storage *string) []key {
	return []key{
		{name: "replicas", read: func(n ast.Node) { d.count(n, what+"replicas", replicas, 5) }},
		{name: "storage", read: func(n ast.Node) {
			d.choice(n, what+"storage", storage, nats.StorageFile, nats.StorageMemory)
		}},
	}
}

// tlsFiles are what TLS is set up from, the same for every backend.
type tlsFiles struct {
	CA, Cert, Key, ServerName string
	Insecure                  bool
}

// on tells whether a value is just "true".
func (d *decoder) on(n ast.Node, what string) bool {
	b, ok := n.(*ast.BoolNode)
	if ok && !b.Value {
		d.atf(n, "%s: false is not possible; leave it out, or say true or a mapping", what)
	}
	return ok
}

func (d *decoder) tls(n ast.Node, what string, t *tlsFiles) {
	text := func(name string, to *string) key {
		return key{name: name, read: func(n ast.Node) { d.text(n, what+"."+name, to) }}
	}
	d.mapping(n, what, text("ca", &t.CA), text("cert", &t.Cert), text("key", &t.Key), text("server_name", &t.ServerName),
		key{name: "insecure", read: func(n ast.Node) { d.truth(n, what+".insecure", &t.Insecure) }})
}
