package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
)

// reloads tell whether the configuration in use is the one that was given last.
type reloads struct{ successful, at prometheus.Gauge }

func newReloads(registry prometheus.Registerer) reloads {
	r := reloads{
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "prism_config_last_reload_successful",
			Help: "1 when the configuration that was loaded last is in use; 0 when it was refused.",
		}),
		at: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "prism_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration in use was loaded, in seconds since 1970.",
		}),
	}
	registry.MustRegister(r.successful, r.at)
	return r
}

// Reloaded notes that a configuration was loaded, and whether it is in use now.
func (m *Metrics) Reloaded(ok bool) {
	if !ok {
		m.reloads.successful.Set(0)
		return
	}
	m.reloads.successful.Set(1)
	m.reloads.at.SetToCurrentTime()
}
