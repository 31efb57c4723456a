package redis

import multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"

var (
	_ multicastregistry.Sourcer = (*Registry)(nil)
	_ multicastregistry.Sourcer = (*Sharded)(nil)
)

// Source implements multicastregistry.Sourcer.
func (r *Registry) Source() multicastregistry.Source {
	if r.cfg.Enumerate == EnumerateScan {
		return multicastregistry.SourceScan
	}
	return multicastregistry.SourceNative
}

// Source implements multicastregistry.Sourcer.
func (s *Sharded) Source() multicastregistry.Source { return s.shards[0].Source() }
