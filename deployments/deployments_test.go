// Package deployments_test checks what the deployments say about the server against the server itself. Whether Kubernetes, Docker
// and Prometheus understand the files is checked by `make lint-deployments`.
package deployments_test

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/prism-data-layer/prism/internal/app"
)

const (
	adminPort = 8982
	// lastWords is what the server takes at most after drain_timeout, with some to spare.
	lastWords = 2 * time.Second
)

// decode reads the first YAML document of a file; keys that T does not know are passed over.
func decode[T any](t *testing.T, file string) (out T) {
	t.Helper()
	if err := yaml.NewDecoder(strings.NewReader(read(t, file))).Decode(&out); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return out
}

func read(t *testing.T, file string) string {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(src)
}

func parse(t *testing.T, file, src string) app.Config {
	t.Helper()
	cfg, err := app.Parse(file, []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestConfigurations parses every configuration as the server does.
func TestConfigurations(t *testing.T) {
	for _, file := range []string{"compose/prism.yaml", "systemd/prism.yaml"} {
		parse(t, file, read(t, file))
	}
	configMap(t)
}

// TestDockerfile checks the ports of the image, and those that it listens at without a configuration.
func TestDockerfile(t *testing.T) {
	image := read(t, "../Dockerfile")
	cfg := app.Default()
	grpc, http := portOf(t, cfg.Listen.GRPC), portOf(t, cfg.Listen.HTTP)
	for _, want := range []string{
		fmt.Sprintf("\nEXPOSE %d %d %d\n", grpc, http, adminPort),
		fmt.Sprintf(`"--grpc-addr", "0.0.0.0:%d", "--http-addr", "0.0.0.0:%d"`, grpc, http),
	} {
		if !strings.Contains(image, want) {
			t.Errorf("the Dockerfile has no %q", want)
		}
	}
}

// TestCompose follows the ports from the configuration to the host, and the metrics to Prometheus.
func TestCompose(t *testing.T) {
	cfg := parse(t, "compose/prism.yaml", read(t, "compose/prism.yaml"))
	type service struct {
		Ports []string
		Grace string `yaml:"stop_grace_period"`
		Image string
	}
	var targets []string
	for name, s := range decode[struct{ Services map[string]service }](t, "docker-compose.yml").Services {
		if s.Image != "prism:local" {
			continue
		}
		targets = append(targets, fmt.Sprintf("%s:%d", name, adminPort))
		if grace, err := time.ParseDuration(s.Grace); err != nil || grace < cfg.DrainTimeout+lastWords {
			t.Errorf("stop_grace_period of %s is %q; drain_timeout is %s", name, s.Grace, cfg.DrainTimeout)
		}
		var inside []int
		for _, p := range s.Ports {
			inside = append(inside, portOf(t, p[strings.LastIndexByte(p[:strings.LastIndexByte(p, ':')], ':')+1:]))
		}
		if !slices.Equal(inside, []int{portOf(t, cfg.Listen.GRPC), portOf(t, cfg.Listen.HTTP)}) {
			t.Errorf("%s publishes the ports %v of its container", name, inside)
		}
	}
	slices.Sort(targets)
	scraped := decode[struct {
		Jobs []struct {
			Name   string                       `yaml:"job_name"`
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}](t, "prometheus/prometheus.yml").Jobs[0].Static[0].Targets
	if len(targets) != 3 || !slices.Equal(targets, scraped) {
		t.Errorf("the proxies are %v, Prometheus scrapes %v", targets, scraped)
	}
}

// TestGrafana checks that what is provisioned is where Grafana looks for it.
func TestGrafana(t *testing.T) {
	mounts := decode[struct {
		Services map[string]struct{ Volumes []string }
	}](t, "docker-compose.yml").Services["grafana"].Volumes
	path := decode[struct {
		Providers []struct{ Options struct{ Path string } }
	}](t, "grafana/provisioning/dashboards/prism.yaml").Providers[0].Options.Path
	if want := "./grafana/dashboards:" + path + ":ro"; !slices.Contains(mounts, want) {
		t.Errorf("Grafana mounts %v, not %s", mounts, want)
	}
}

// TestUnit checks what the unit says about the server.
func TestUnit(t *testing.T) {
	unit := read(t, "systemd/prism.service")
	cfg := parse(t, "systemd/prism.yaml", read(t, "systemd/prism.yaml"))
	stop := regexp.MustCompile(`(?m)^TimeoutStopSec=(\S+)$`).FindStringSubmatch(unit)
	if len(stop) != 2 {
		t.Fatal("no TimeoutStopSec")
	}
	if d, err := time.ParseDuration(stop[1]); err != nil || d < cfg.DrainTimeout+lastWords {
		t.Errorf("TimeoutStopSec is %s; drain_timeout is %s", stop[1], cfg.DrainTimeout)
	}
	state := regexp.MustCompile(`(?m)^StateDirectory=(\S+)$`).FindStringSubmatch(unit)
	if len(state) != 2 || !strings.HasPrefix(cfg.Namespaces[0].Registry.NATS.Conn.StoreDir, "/var/lib/"+state[1]+"/") {
		t.Errorf("the unit may write to %v, the configuration to %s", state, cfg.Namespaces[0].Registry.NATS.Conn.StoreDir)
	}
}
