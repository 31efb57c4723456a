package redis

import (
	"strconv"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// keys are the names of the keys of one group: see the package's comment.
type keys struct {
	leases, head, log string
	identity          string // followed by the encoded name
}

// keysOf returns the keys of one of a namespace's shards; of 1 shard there is only number 0.
func keysOf(namespace string, shard, shards int) keys {
	tag := "{prism:" + namespace + "}"
	if shards > 1 {
		tag = "{prism:" + namespace + ":" + strconv.Itoa(shard) + "}"
	}
	return keys{leases: tag + ":leases", head: tag + ":head", log: tag + ":log", identity: tag + ":id:"}
}

func (k keys) of(id string) string { return k.identity + multicastregistry.EncodeName(id) }
