package main

import (
	"go/constant"
	"math"
	"strconv"
	"strings"
	"time"
)

// What the page says in other words than the code.

// rates is what the limits of each caller and of all have in common.
const rates = "How often operations of a role may be called; each attach and each stream counts as one. " +
	"`{rate: 100/s, burst: 500}` says how many at once."

// payloadBytes and metadataBytes too.
const (
	payloadBytes = "How many bytes the payloads of multicasts may have, counted once for each multicast, to however many it goes. " +
		"`{rate: 1MiB/s, burst: 10MiB}` says how many at once: a larger payload is never taken."
	metadataBytes = "How many bytes the metadata of registrations may have, as `max_metadata` counts them. " +
		"`{rate: 100KB/s, burst: 1MB}` says how many at once."
)

// described are keys without a field of their own, or whose comment speaks to programmers: by their path, or by "*." and their
// name wherever in a slot they stand.
var described = map[string]string{
	"namespaces.name": "What calls name it by: 1 to 63 lower-case letters, digits, `-` and `_`, beginning with a letter or " +
		"digit. A call that names none means `default`.",
	"namespaces.pattern":                 "The only pattern there is.",
	"namespaces.backend_slots":           "What keeps identities, carries messages, and keeps messages.",
	"namespaces.backend_slots.registry":  "Keeps identities, their metadata and leases.",
	"namespaces.backend_slots.messaging": "Carries messages and acks.",
	"namespaces.backend_slots.durability": "Keeps what was not acknowledged, and records of multicasts. Without it nothing " +
		"is kept.",
	"namespaces.limits.per_caller.rates":          rates,
	"namespaces.limits.total.rates":               rates,
	"namespaces.limits.per_caller.payload_bytes":  payloadBytes,
	"namespaces.limits.total.payload_bytes":       payloadBytes,
	"namespaces.limits.per_caller.metadata_bytes": metadataBytes,
	"namespaces.limits.total.metadata_bytes":      metadataBytes,
	"namespaces.identity_schema.fields.NAME.type": "What the value is.",
	"*.enumerate": "Where reads are answered: from a copy in this process (`replica`), inside the backend (`native`), or by " +
		"fetching everything (`scan`).",
	"*.max_staleness": "How long the copy answers without news of the backend, at least 2s; then reads are UNAVAILABLE.",
	"*.replica_max_bytes": "About how much memory the copy may take. A larger registry is not copied: the backend answers itself, " +
		"and the log says so.",
	"*.servers": "The servers, as `host:port` or URL (`nats://`, `tls://`, `ws://`, `wss://`): any of a cluster. Not with " +
		"`embedded`, else required.",
	"*.storage": "`file` survives a restart of the servers, `memory` does not. It must be what existing streams have.",
	"*.tls":     "Encrypts the connections: `true`, or a mapping.",
	"*.host":    "The server, as `host:port`. It or `addresses` is required.",
	"*.shards":  "Spreads the namespace over that many slots of a Redis Cluster, for good: every proxy must say the same.",
	"*.cluster": "Says that the server is a node of a Redis Cluster.",
	"*.timeout": "Longest wait for an answer of the backend, where the call has no deadline; then it is UNAVAILABLE.",
}

// describedAs finds what describes a key.
func describedAs(path string) string {
	if text := described[path]; text != "" || !strings.Contains(path, ".backend_slots.") {
		return text
	}
	return described["*"+path[strings.LastIndexByte(path, '.'):]]
}

// defaults name what the comment leaves out: a constant of internal/app, or what is the case. By name, or by path.
var defaults = map[string]string{
	"listen.grpc": "DefaultGRPC", "listen.http": "DefaultHTTP", "drain_timeout": "DefaultDrainTimeout",
	"startup_timeout": "DefaultStartupTimeout",
	"enumerate":       "`replica`", "host": "port 6379", "embedded": "false", "cluster": "false", "database": "0",
	"insecure":          "false",
	"namespaces.filter": "see there",
}

// terms are turns of the code's comments that the page says otherwise.
var terms = strings.NewReplacer(
	"another one is ErrQuota", "another one is RESOURCE_EXHAUSTED", "then it is ErrUnavailable", "then it is UNAVAILABLE",
	"one topic in one subscription", "one identity in one stream", "next consumer", "next subscriber",
	"whoever consumes their topic", "whoever attaches to the identity", "hash tags", "slots of a Redis Cluster",
	" Of types redis and nats, the latter without native.", "", "; see Durability for how exact that is", "",
	", as exact as MaxMessages", "",
	"; for a queue that stores nothing else and that nobody consumes the count is kept for as long again", "",
	"or NoExpiry", "or `never`", "an nkey's seed", "the seed of an nkey", "how long Open waits", "how long the start waits",
	"Default: Algorithms().", "Default: those with public keys.", " Nil: none.", "",
	"Nil: they are not.", "Without it they are not.",
	"Nil: nobody is asked", "Without it nobody is asked", ", as NewToken returns it", "", "With Auth, nobody", "With `auth`, nobody",
	"without Auth.", "without `auth`.", "Nil: anything.", "Default: anything.",
	"Empty: nowhere.", "Default: nowhere.",
	"0: any number.", "Default: any number.", "0: no bound.", "Default: no bound.", "Empty: nothing is noted.", "Default: none.",
	"|", "\\|", `"*"`, "`*`", "* is any", "`*` is any", `"${sub}/*"`, "`${sub}/*`",
	"${sub} and ${claim.NAME}", "`${sub}` and `${claim.NAME}`", `{"roles": ["ops"]}`, "`{roles: [ops]}`",
	"$and, $or and $not", "`$and`, `$or` and `$not`", "$in or $nin", "`$in` or `$nin`", "$regex", "`$regex`",
	" in bytes.", ".", " in bytes:", ":",
)

func shown(v constant.Value, k key) string {
	switch {
	case v.Kind() == constant.String:
		return "`" + constant.StringVal(v) + "`"
	case strings.HasPrefix(k.kind, "seconds"):
		n, _ := constant.Int64Val(v)
		text := strings.Replace(time.Duration(n).String(), "m0s", "m", 1)
		return strings.Replace(text, "h0m", "h", 1)
	case strings.HasPrefix(k.kind, "bytes"):
		n, _ := constant.Int64Val(v)
		return size(uint64(n))
	}
	n, _ := constant.Int64Val(v)
	return grouped(strconv.FormatInt(n, 10))
}

func size(n uint64) string {
	for _, unit := range []struct {
		name  string
		bytes uint64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n%unit.bytes == 0 {
			return strconv.FormatUint(n/unit.bytes, 10) + " " + unit.name
		}
	}
	return grouped(strconv.FormatUint(n, 10))
}

func grouped(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// valueOf says what a key takes.
func valueOf(k key) string {
	switch {
	case len(k.values) > 0:
		return choice(k)
	case k.kind == "a mapping":
		return mapping(k)
	case k.many:
		return "text, or a list of texts"
	case k.kind == "a list" && len(k.keys) > 0:
		return "list of mappings"
	case k.kind == "a list":
		return "list of texts"
	case strings.HasPrefix(k.kind, "host:port"):
		return "host:port"
	case strings.HasPrefix(k.kind, "seconds") && strings.Contains(k.kind, "never"):
		return "duration, or `never`"
	case strings.HasPrefix(k.kind, "seconds"):
		return "duration"
	}
	return ranged(k)
}

// mapping says what a mapping holds.
func mapping(k key) string {
	switch {
	case k.again && k.named:
		return "mapping of any names to mappings as this one"
	case k.again:
		return "mapping as this one"
	case k.named:
		return "mapping of any names to mappings"
	case len(k.keys) == 0 && len(k.types) == 0:
		return "mapping with any keys"
	}
	return "mapping"
}

// ranged says what a number or a size may be.
func ranged(k key) string {
	least, most, _ := strings.Cut(k.span, " to ")
	switch {
	case strings.HasPrefix(k.kind, "bytes"):
		if n, err := strconv.ParseUint(most, 10, 64); err == nil && n < math.MaxInt32 {
			return "size, up to " + size(n)
		}
		return "size"
	case k.kind != "a whole number" || k.span == "":
		return k.kind
	case most == strconv.Itoa(math.MaxInt32):
		return "number, from " + least
	}
	return "number, " + least + " to " + grouped(most)
}

// perKey says what a mapping takes whose keys all take the same.
func perKey(k key) string {
	names := make([]string, len(k.keys))
	for i, inner := range k.keys {
		names[i] = "`" + inner.name + "`"
	}
	return "mapping; each of " + strings.Join(names, ", ") + ": " + valueOf(k.keys[0])
}

// choice says which of a few values a key takes.
func choice(k key) string {
	text := "`" + strings.Join(k.values, "`, `") + "`"
	switch {
	case k.many:
		return text + "; one, or a list"
	case k.kind == "a list":
		return "list of " + text
	}
	return text
}
