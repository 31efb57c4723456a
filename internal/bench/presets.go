package bench

import (
	"maps"
	"slices"
	"time"
)

// Preset is a scenario with a name.
type Preset struct {
	// Name is what it is asked for by.
	Name string
	// About says what it is, in a sentence.
	About string
	// Plans are run one after the other.
	Plans []Plan
}

// presets by name.
var presets = map[string]Preset{
	"spec": {
		About: "100 callers register, 50 enumerate, 10 multicast at once; then single enumerates and multicasts of 100, with limits",
		Plans: []Plan{
			{
				Name: "spec: concurrent operations", Shares: map[string]float64{Register: 100, Enumerate: 50, Multicast: 10},
				Concurrency: 160, Dedicated: true, Identities: 1000, Targets: 10, Duration: 10 * time.Second,
			},
			{
				Name: "spec: performance", Shares: map[string]float64{Enumerate: 1, Multicast: 1}, Concurrency: 1, Identities: 1000,
				Targets: 100, Duration: 10 * time.Second,
				Limits: []Limit{{Enumerate, 99, 20}, {Multicast, 99, 100}},
			},
		},
	},
	"growth": {
		About: "1,000 operations a second, half of them registrations: to 31,000 identities, and no multicast may become slower",
		Plans: []Plan{{
			Name: "growth", Shares: map[string]float64{Register: 50, Enumerate: 30, Multicast: 20}, Rate: 1000, Duration: time.Minute,
			Identities: 1000, Targets: 10, Limits: []Limit{{Multicast, 99, 100}},
		}},
	},
}

// Presets returns all presets in order of their names.
func Presets() []Preset {
	var all []Preset
	for _, name := range slices.Sorted(maps.Keys(presets)) {
		preset := presets[name]
		preset.Name = name
		all = append(all, preset)
	}
	return all
}
