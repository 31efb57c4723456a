package app

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prism-data-layer/prism/internal/proxy"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// YAML returns the configuration with every default written out, so that Parse of it gives the same one.
func (c Config) YAML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen:\n  grpc: %s\n  http: %s\n", strconv.Quote(c.Listen.GRPC), strconv.Quote(c.Listen.HTTP))
	fmt.Fprintf(&b, "drain_timeout: %s\nnamespaces:\n", c.DrainTimeout)
	for _, n := range c.Namespaces {
		n.write(&b)
	}
	return b.String()
}

func (n Namespace) write(b *strings.Builder) {
	c := n.WithDefaults()
	fmt.Fprintf(b, "  - name: %s\n    pattern: %s\n", strconv.Quote(c.Namespace), proxy.Pattern)
	fmt.Fprintf(b, "    timeout: %s\n    max_payload: %d\n    max_metadata: %d\n    filter:\n",
		c.Timeout, c.MaxPayload, c.MaxMetadata)
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
	fmt.Fprint(b, "    backend_slots:\n")
	fmt.Fprintf(b, "      registry:\n        type: %s\n        ttl_default: %s\n", n.Registry.Type, never(c.TTLDefault))
	option(b, "max_identities", n.Registry.Memory.MaxIdentities)
	fmt.Fprintf(b, "      messaging:\n        type: %s\n        delivery: %s\n", n.Messaging.Type, c.Delivery)
	option(b, "buffer", n.Messaging.Memory.Buffer)
	if n.Durability.Type == "" {
		return
	}
	fmt.Fprintf(b, "      durability:\n        type: %s\n", n.Durability.Type)
	option(b, "max_messages", n.Durability.Memory.MaxMessages)
	option(b, "max_bytes", n.Durability.Memory.MaxBytes)
	option(b, "max_age", n.Durability.Memory.MaxAge)
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
