package app

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/internal/limits"
	"github.com/prism-data-layer/prism/internal/schema"
	"github.com/prism-data-layer/prism/internal/tracing"
	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/replica"
	"github.com/prism-data-layer/prism/patterns/nats"
	"github.com/prism-data-layer/prism/patterns/redis"
)

// Defaults of Config.
const (
	DefaultGRPC           = "127.0.0.1:8980"
	DefaultHTTP           = "127.0.0.1:8981"
	DefaultDrainTimeout   = 10 * time.Second
	DefaultStartupTimeout = 30 * time.Second
)

// maxConfigBytes is the largest configuration file: far more than anyone writes, little enough to parse without care.
const maxConfigBytes = 1 << 18

// Config is a whole configuration: what Parse reads from YAML, with every default filled in.
type Config struct {
	// Listen holds the addresses to serve at.
	Listen Listen
	// Version is what the binary calls itself, in metrics. Empty: what Go noted.
	Version string
	// TLS secures connections. Nil: they are not.
	TLS *auth.TLS
	// Auth says which credentials are accepted. Nil: nobody is asked who they are.
	Auth *auth.Config
	// Insecure allows addresses that can be reached from elsewhere without Auth.
	Insecure bool
	// AuditLog is a file to which an entry is appended for each change and each call that was denied, as JSON lines; "stderr" is
	// the standard error. Empty: nothing is noted.
	AuditLog string
	// Tracing says where OpenTelemetry traces of calls go. Default: nowhere, unless OpenTelemetry's environment variables say where.
	Tracing *tracing.Config
	// StartupTimeout is the longest wait for backends that cannot be reached at the start. 0: the start fails at once.
	StartupTimeout time.Duration
	// DrainTimeout is the longest wait for calls in flight when the server is told to end.
	DrainTimeout time.Duration
	// Namespaces are served by this process: at least one, with distinct names.
	Namespaces []Namespace
}

// Listen holds the addresses to serve at, as host:port. Port 0 takes a free one.
type Listen struct {
	// GRPC serves the gRPC API, with reflection and health.
	GRPC string
	// HTTP serves the JSON API, server-sent events, /healthz and /readyz.
	HTTP string
	// Hosts are names under which the HTTP API may be asked for, besides localhost and addresses: of a proxy in front of it, on the
	// same machine. They matter without auth only, at an address that only this machine has.
	Hosts []string
	// Admin serves metrics, health and profiles, without TLS and to whoever comes: others must not reach it. Empty: nowhere.
	Admin string
}

// Namespace is one namespace and what fills its slots.
type Namespace struct {
	multicastregistry.Config

	// Access says who may do what. With Auth, nobody may do anything without a rule; without, there are none.
	Access []auth.Rule
	// Limits bound what callers take.
	Limits limits.Config
	// Schema says what metadata look like. Nil: anything.
	Schema *schema.Config
	// Registry keeps the identities.
	Registry Registry
	// Messaging carries messages and acks.
	Messaging Messaging
	// Durability keeps what an offline identity has not acked. An empty Type: nothing is kept.
	Durability Durability
}

// Registry says what fills the registry slot. Of the options those of the type are used.
type Registry struct {
	// Type is the type of the backend.
	Type string
	// Enumerate says where reads are answered: from a copy in this process (replica, the default), in the backend (native), or
	// by fetching everything from it (scan). Of types redis and nats, the latter without native.
	Enumerate string
	// Replica are the options of the copy.
	Replica replica.Config
	// Memory are the options of type memory.
	Memory memory.RegistryConfig
	// Redis are the options of type redis.
	Redis struct {
		redis.RegistryConfig

		Conn redis.Config
	}
	// NATS are the options of type nats.
	NATS struct {
		nats.RegistryConfig

		Conn NATS
	}
}

// Messaging says what fills the messaging slot. Of the options those of the type are used.
type Messaging struct {
	// Type is the type of the backend.
	Type string
	// Memory are the options of type memory.
	Memory memory.MessagingConfig
	// Redis are the options of type redis.
	Redis struct {
		redis.MessagingConfig

		Conn redis.Config
	}
	// NATS are the options of type nats.
	NATS struct {
		nats.MessagingConfig

		Conn NATS
	}
}

// NATS says where NATS is: servers to connect to, or one that runs in this process.
type NATS struct {
	nats.Config

	// Embedded runs a server in this process. Slots that say the same about it share one.
	Embedded bool
	// Listen is the address at which the embedded server takes other clients, as host:port. Empty: none.
	Listen string
	// StoreDir is where the embedded server keeps its streams. Empty: in a temporary folder that ends with
	// the process.
	StoreDir string
}

// Durability says what fills the durability slot.
type Durability struct {
	// Type is the type of the backend. Empty: nothing fills the slot.
	Type string
	// Memory are the options of type memory.
	Memory memory.DurabilityConfig
	// Redis are the options of type redis.
	Redis struct {
		redis.DurabilityConfig

		Conn redis.Config
	}
	// NATS are the options of type nats.
	NATS struct {
		nats.DurabilityConfig

		Conn NATS
	}
}

// Default returns the configuration that runs without a file: one namespace, "default", in the memory of the process. It
// keeps nothing for identities that are not attached: a multicast to one says so at once, as FAILED with NO_SUBSCRIBER.
func Default() Config {
	return Config{
		Listen: Listen{GRPC: DefaultGRPC, HTTP: DefaultHTTP}, DrainTimeout: DefaultDrainTimeout,
		StartupTimeout: DefaultStartupTimeout,
		Namespaces: []Namespace{{
			Config:   defaults(multicastregistry.DefaultNamespace),
			Registry: Registry{Type: typeMemory}, Messaging: Messaging{Type: typeMemory},
		}},
	}
}

// defaults is the configuration of a namespace with everything filled in.
func defaults(name string) multicastregistry.Config {
	cfg := multicastregistry.Config{Filter: filter.DefaultLimits}.WithDefaults()
	cfg.Namespace = name
	return cfg
}

// Load reads a configuration file. When the file is at fault the error is a *ConfigError with every problem in it.
func Load(file string) (Config, error) {
	src, err := Read(file)
	if err != nil {
		return Config{}, err
	}
	return Parse(file, src)
}

// Read returns what a configuration file holds.
func Read(file string) ([]byte, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return src, nil
}

// validate checks what Parse would have checked, for a Config that was put together by a program.
func (c Config) validate() error {
	if len(c.Namespaces) == 0 {
		return errors.New("the configuration has no namespaces: at least one is needed")
	}
	if c.Tracing != nil {
		if err := c.Tracing.Validate(); err != nil {
			return fmt.Errorf("tracing: %w", err)
		}
	}
	seen := make(map[string]bool)
	for _, n := range c.Namespaces {
		if err := n.Validate(); err != nil {
			return fmt.Errorf("namespace %q: %w", n.Namespace, err)
		}
		name := n.WithDefaults().Namespace
		if seen[name] {
			return fmt.Errorf("namespace %q is given twice", name)
		}
		seen[name] = true
	}
	return nil
}
