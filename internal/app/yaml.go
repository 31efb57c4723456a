package app

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prism-data-layer/prism/internal/proxy"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
	"github.com/prism-data-layer/prism/patterns/redis"
)

// YAML returns the configuration with every default written out, so that Parse of it gives the same one.
func (c Config) YAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen:\n  grpc: %s\n  http: %s\n", strconv.Quote(c.Listen.GRPC), strconv.Quote(c.Listen.HTTP))
	if len(c.Listen.Hosts) > 0 {
		b.WriteString("  hosts:\n")
		for _, host := range c.Listen.Hosts {
			fmt.Fprintf(&b, "    - %s\n", strconv.Quote(host))
		}
	}
	if c.Listen.Admin != "" {
		fmt.Fprintf(&b, "  admin: %s\n", strconv.Quote(c.Listen.Admin))
	}
	c.writeSecurity(&b)
	if c.Tracing != nil {
		section(&b, "", "tracing", tracingEntries(c.Tracing))
	}
	fmt.Fprintf(&b, "startup_timeout: %s\ndrain_timeout: %s\nnamespaces:\n", c.StartupTimeout, c.DrainTimeout)
	for _, n := range c.Namespaces {
		n.write(&b)
	}
	return b.String()
}

// masked stands for a secret that is shown to people.
const masked = "REDACTED"

// Masked returns the configuration with every password and token masked: for people to look at, not to be used.
func (c Config) Masked() Config {
	hide := func(secrets ...*string) {
		for _, secret := range secrets {
			if *secret != "" {
				*secret = masked
			}
		}
	}
	c.Tracing = maskedTracing(c.Tracing)
	c.Namespaces = slices.Clone(c.Namespaces)
	for i := range c.Namespaces {
		n := &c.Namespaces[i]
		for _, conn := range []*redis.Config{&n.Registry.Redis.Conn, &n.Messaging.Redis.Conn, &n.Durability.Redis.Conn} {
			hide(&conn.Password, &conn.Sentinel.Password)
		}
		for _, conn := range []*NATS{&n.Registry.NATS.Conn, &n.Messaging.NATS.Conn, &n.Durability.NATS.Conn} {
			hide(&conn.Password, &conn.Token)
			conn.Servers = slices.Clone(conn.Servers)
			for i, server := range conn.Servers {
				if u, err := url.Parse(server); err == nil && u.User != nil {
					u.User = url.User(masked)
					conn.Servers[i] = u.String()
				}
			}
		}
	}
	return c
}

func (n Namespace) write(b *strings.Builder) {
	c := n.WithDefaults()
	fmt.Fprintf(b, "  - name: %s\n    pattern: %s\n", strconv.Quote(c.Namespace), proxy.Pattern)
	fmt.Fprintf(b, "    timeout: %s\n    retry_attempts: %d\n    retry_delay: %s\n", c.Timeout, c.RetryAttempts, c.RetryDelay)
	if c.AttemptTimeout != 0 { // else it follows from the two
		fmt.Fprintf(b, "    attempt_timeout: %s\n", c.AttemptTimeout)
	}
	fmt.Fprintf(b, "    max_payload: %d\n    max_metadata: %d\n    filter:\n", c.MaxPayload, c.MaxMetadata)
	for _, limit := range []struct {
		name           string
		value, ifUnset int
	}{
		{"max_depth", c.Filter.Depth, filter.DefaultLimits.Depth},
		{"max_clauses", c.Filter.Clauses, filter.DefaultLimits.Clauses},
		{"max_in_values", c.Filter.InValues, filter.DefaultLimits.InValues},
		{"max_regex_bytes", c.Filter.RegexBytes, filter.DefaultLimits.RegexBytes},
	} {
		value := limit.value
		if value == 0 {
			value = limit.ifUnset
		}
		fmt.Fprintf(b, "      %s: %d\n", limit.name, value)
	}
	writeAccess(b, n.Access)
	writeSchema(b, n.Schema)
	writeLimits(b, n.Limits)
	fmt.Fprint(b, "    backend_slots:\n")
	fmt.Fprintf(b, "      registry:\n        type: %s\n        ttl_default: %s\n", n.Registry.Type, never(c.TTLDefault))
	n.Registry.write(b)
	fmt.Fprintf(b, "      messaging:\n        type: %s\n        delivery: %s\n", n.Messaging.Type, c.Delivery)
	n.Messaging.write(b)
	if n.Durability.Type == "" {
		return
	}
	fmt.Fprintf(b, "      durability:\n        type: %s\n", n.Durability.Type)
	n.Durability.write(b)
}

func (r Registry) write(b *strings.Builder) {
	switch r.Type {
	case typeMemory:
		option(b, "max_identities", r.Memory.MaxIdentities)
	case typeRedis:
		writeRedis(b, r.Redis.Conn)
		option(b, "max_identities", r.Redis.MaxIdentities)
		option(b, "shards", r.Redis.Shards)
		option(b, "change_log", r.Redis.ChangeLog)
		r.writeReplica(b)
	case typeNATS:
		writeNATS(b, r.NATS.Conn)
		option(b, "replicas", r.NATS.Replicas)
		option(b, "storage", r.NATS.Storage)
		option(b, "change_log", r.NATS.ChangeLog)
		r.writeReplica(b)
	}
}

func (r Registry) writeReplica(b *strings.Builder) {
	option(b, "enumerate", r.Enumerate)
	option(b, "max_staleness", r.Replica.MaxStaleness)
	option(b, "replica_max_bytes", r.Replica.MaxBytes)
}

func (m Messaging) write(b *strings.Builder) {
	switch m.Type {
	case typeMemory:
		option(b, "buffer", m.Memory.Buffer)
	case typeRedis:
		writeRedis(b, m.Redis.Conn)
		option(b, "buffer", m.Redis.Buffer)
	case typeNATS:
		writeNATS(b, m.NATS.Conn)
		option(b, "buffer", m.NATS.Buffer)
	}
}

func (q Durability) write(b *strings.Builder) {
	bounds := func(messages, bytes int, age, retention time.Duration, multicasts int) {
		option(b, "max_messages", messages)
		option(b, "max_bytes", bytes)
		option(b, "max_age", age)
		option(b, "retention", retention)
		option(b, "max_multicasts", multicasts)
	}
	switch q.Type {
	case typeMemory:
		bounds(q.Memory.MaxMessages, q.Memory.MaxBytes, q.Memory.MaxAge, q.Memory.Retention, q.Memory.MaxMulticasts)
	case typeRedis:
		writeRedis(b, q.Redis.Conn)
		bounds(q.Redis.MaxMessages, q.Redis.MaxBytes, q.Redis.MaxAge, q.Redis.Retention, q.Redis.MaxMulticasts)
	case typeNATS:
		writeNATS(b, q.NATS.Conn)
		option(b, "replicas", q.NATS.Replicas)
		option(b, "storage", q.NATS.Storage)
		bounds(q.NATS.MaxMessages, q.NATS.MaxBytes, q.NATS.MaxAge, q.NATS.Retention, q.NATS.MaxMulticasts)
	}
}

func writeRedis(b *strings.Builder, c redis.Config) {
	text(b, "host", c.Host)
	texts(b, "addresses", c.Addresses)
	option(b, "cluster", c.Cluster)
	if s := c.Sentinel; s.Master != "" {
		fmt.Fprint(b, "        sentinel:\n")
		for _, o := range [][2]string{{"master", s.Master}, {"username", s.Username}, {"password", s.Password}} {
			text(b, "  "+o[0], o[1])
		}
	}
	text(b, "username", c.Username)
	text(b, "password", c.Password)
	text(b, "password_file", c.PasswordFile)
	option(b, "database", c.Database)
	writeTLS(b, (*tlsFiles)(c.TLS))
	option(b, "timeout", c.Timeout)
}

func writeNATS(b *strings.Builder, c NATS) {
	texts(b, "servers", c.Servers)
	for _, o := range [][2]string{
		{"user", c.User},
		{"password", c.Password},
		{"password_file", c.PasswordFile},
		{"token", c.Token},
		{"credentials", c.Credentials},
		{"nkey", c.NKey},
		{"inbox_prefix", c.InboxPrefix},
	} {
		text(b, o[0], o[1])
	}
	writeTLS(b, (*tlsFiles)(c.TLS))
	option(b, "timeout", c.Timeout)
	option(b, "embedded", c.Embedded)
	text(b, "listen", c.Listen)
	text(b, "store_dir", c.StoreDir)
}

func writeTLS(b *strings.Builder, t *tlsFiles) {
	switch {
	case t == nil:
		return
	case *t == tlsFiles{}:
		option(b, "tls", true)
		return
	}
	fmt.Fprint(b, "        tls:\n")
	for _, o := range [][2]string{{"ca", t.CA}, {"cert", t.Cert}, {"key", t.Key}, {"server_name", t.ServerName}} {
		text(b, "  "+o[0], o[1])
	}
	option(b, "  insecure", t.Insecure)
}

func text(b *strings.Builder, name, value string) {
	if value != "" {
		option(b, name, strconv.Quote(value))
	}
}

func texts(b *strings.Builder, name string, values []string) {
	if len(values) == 0 {
		return
	}
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = strconv.Quote(v)
	}
	option(b, name, "["+strings.Join(quoted, ", ")+"]")
}

// option writes an option of a backend, whose default is the backend's own.
func option[T comparable](b *strings.Builder, name string, value T) {
	var unset T
	if value != unset {
		fmt.Fprintf(b, "        %s: %v\n", name, value)
	}
}

func never(ttl time.Duration) string {
	if ttl == multicastregistry.NoExpiry {
		return "never"
	}
	return ttl.String()
}
