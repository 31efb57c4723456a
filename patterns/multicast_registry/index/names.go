package index

import (
	"hash/maphash"
	"maps"
	"sync"
)

// names finds documents by name: a map in parts, none of which takes long to rebuild.
type names struct {
	seed  maphash.Seed
	parts [256]namesPart
}

type namesPart struct {
	mu   sync.RWMutex
	refs map[string]ref
	peak int // entries that the map has room for at least; maps never give memory back
}

func newNames() *names {
	n := &names{seed: maphash.MakeSeed()}
	for i := range n.parts {
		n.parts[i].refs = make(map[string]ref)
	}
	return n
}

func (n *names) part(id string) *namesPart {
	return &n.parts[maphash.String(n.seed, id)%uint64(len(n.parts))]
}

func (n *names) find(id string) (r ref, ok bool) {
	p := n.part(id)
	p.mu.RLock()
	defer p.mu.RUnlock()
	r, ok = p.refs[id]
	return r, ok
}

// set makes id the key. When there is one, it does so in place of an equal string, which would keep memory.
func (p *namesPart) set(id string, r ref, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known {
		delete(p.refs, id)
	}
	p.refs[id] = r
	p.peak = max(p.peak, len(p.refs))
}

func (n *names) remove(id string) {
	p := n.part(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.refs, id)
	if p.peak >= 64 && len(p.refs) < p.peak/4 {
		smaller := make(map[string]ref, len(p.refs))
		maps.Copy(smaller, p.refs)
		p.refs, p.peak = smaller, len(p.refs)
	}
}
