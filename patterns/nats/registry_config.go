package nats

import (
	"regexp"
	"time"
)

// Storage says where a registry's streams are kept.
const (
	// StorageFile survives a restart of the servers.
	StorageFile = "file"
	// StorageMemory is lost when the last server that has it stops.
	StorageMemory = "memory"
)

// DefaultChangeLog is how many changes the log keeps unless RegistryConfig says otherwise.
const DefaultChangeLog = 100_000

const (
	maxReplicas = 5 // JetStream's limit
	// minChangeLog is how many changes the log has room for whatever the configuration says: readers need some to keep up with.
	minChangeLog = 1000
	// changeLogAge bounds the log in time: it is for readers that come back, not an archive.
	changeLogAge = 15 * time.Minute
)

// RegistryConfig is the configuration of a Registry. The values of an existing bucket must be the same: nothing is changed
// behind an operator's back.
type RegistryConfig struct {
	// Namespace is the name of the namespace; the bucket is "prism-<namespace>". Required.
	Namespace string
	// Replicas is how many servers keep the registry: 1, or 3 or 5 in a cluster. Default (0): 1.
	Replicas int
	// Storage is StorageFile or StorageMemory. Default (""): StorageFile.
	Storage string
	// ChangeLog is how many changes the log keeps for readers that were away, for a quarter of an hour at the most; below 1,000 it
	// counts as that many. Default (0): DefaultChangeLog.
	ChangeLog int
	// OutageAfter is how long nobody reaches the servers before that is an outage, which prolongs leases; at least 2 seconds. The
	// same in every process. Default (0): DefaultOutageAfter.
	OutageAfter time.Duration
}

var namespaceForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// Validate returns an InvalidError that names the field with an impossible value.
func (c RegistryConfig) Validate() error {
	switch {
	case !namespaceForm.MatchString(c.Namespace):
		return invalid("namespace", "%q is not 1 to 63 lower-case letters, digits, '-' and '_'", c.Namespace)
	case c.Replicas < 0 || c.Replicas > maxReplicas:
		return invalid("replicas", "must be from 1 to %d, is %d", maxReplicas, c.Replicas)
	case c.Storage != "" && c.Storage != StorageFile && c.Storage != StorageMemory:
		return invalid("storage", "%q is neither %q nor %q", c.Storage, StorageFile, StorageMemory)
	case c.ChangeLog < 0:
		return invalid("change_log", "must not be negative, is %d", c.ChangeLog)
	case c.OutageAfter != 0 && c.OutageAfter < minOutageAfter:
		return invalid("outage_after", "must be at least %s, is %s", minOutageAfter, c.OutageAfter)
	}
	return nil
}

func (c RegistryConfig) withDefaults() RegistryConfig {
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.Storage == "" {
		c.Storage = StorageFile
	}
	if c.ChangeLog == 0 {
		c.ChangeLog = DefaultChangeLog
	}
	c.ChangeLog = max(c.ChangeLog, minChangeLog)
	if c.OutageAfter == 0 {
		c.OutageAfter = DefaultOutageAfter
	}
	return c
}
