package deployments_test

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/prism-data-layer/prism/internal/app"
)

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
	Timeout int                         `yaml:"timeoutSeconds"`
}

type deployment struct {
	Spec struct {
		Selector struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		Template struct {
			Metadata struct {
				Labels      map[string]string
				Annotations map[string]string
			}
			Spec struct {
				Account    string `yaml:"serviceAccountName"`
				Grace      int    `yaml:"terminationGracePeriodSeconds"`
				Containers []struct {
					Args  []string
					Ports []struct {
						Name string
						Port int `yaml:"containerPort"`
					}
					Startup   probe `yaml:"startupProbe"`
					Liveness  probe `yaml:"livenessProbe"`
					Readiness probe `yaml:"readinessProbe"`
					Lifecycle struct {
						PreStop struct{ Sleep struct{ Seconds int } } `yaml:"preStop"`
					}
					Mounts []struct {
						Name string
						Path string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
				}
			}
		}
	}
}

type port struct {
	Name   string
	Port   int
	Target string `yaml:"targetPort"`
}

// configMap is the configuration that the ConfigMap holds.
func configMap(t *testing.T) app.Config {
	t.Helper()
	data := decode[struct{ Data map[string]string }](t, "kubernetes/configmap.yaml").Data
	if len(data) != 1 {
		t.Errorf("the ConfigMap holds %d files", len(data))
	}
	return parse(t, "prism.yaml of kubernetes/configmap.yaml", data["prism.yaml"])
}

// TestKubernetesPorts follows each port from the configuration to the container, the services and the network policy.
func TestKubernetesPorts(t *testing.T) {
	cfg := configMap(t)
	ports := map[string]int{"grpc": portOf(t, cfg.Listen.GRPC), "http": portOf(t, cfg.Listen.HTTP), "admin": adminPort}
	pod := decode[deployment](t, "kubernetes/deployment.yaml").Spec.Template
	container := pod.Spec.Containers[0]
	if len(container.Ports) != len(ports) {
		t.Errorf("the container has %d ports, the server %d", len(container.Ports), len(ports))
	}
	for _, p := range container.Ports {
		if ports[p.Name] != p.Port {
			t.Errorf("the container's port %s is %d, the server's %d", p.Name, p.Port, ports[p.Name])
		}
	}
	if got := pod.Metadata.Annotations["prometheus.io/port"]; got != strconv.Itoa(adminPort) {
		t.Errorf("Prometheus is sent to port %s", got)
	}
	services := yaml.NewDecoder(strings.NewReader(read(t, "kubernetes/service.yaml")))
	for range 2 {
		var service struct {
			Spec struct {
				Selector map[string]string
				Ports    []port
			}
		}
		if err := services.Decode(&service); err != nil {
			t.Fatal(err)
		}
		selects(t, service.Spec.Selector, pod.Metadata.Labels)
		for _, p := range service.Spec.Ports {
			if p.Target != p.Name || ports[p.Name] != p.Port {
				t.Errorf("a service has the port %+v", p)
			}
		}
	}
	policy := decode[struct {
		Spec struct {
			Pods struct {
				MatchLabels map[string]string `yaml:"matchLabels"`
			} `yaml:"podSelector"`
			Ingress []struct{ Ports []struct{ Port string } }
		}
	}](t, "kubernetes/networkpolicy.yaml").Spec
	selects(t, policy.Pods.MatchLabels, pod.Metadata.Labels)
	for _, rule := range policy.Ingress {
		for _, p := range rule.Ports {
			if ports[p.Port] == 0 {
				t.Errorf("the network policy names the port %q", p.Port)
			}
		}
	}
}

// TestKubernetesSelectors checks that what is about the pods is about these pods.
func TestKubernetesSelectors(t *testing.T) {
	d := decode[deployment](t, "kubernetes/deployment.yaml")
	labels := d.Spec.Template.Metadata.Labels
	selects(t, d.Spec.Selector.MatchLabels, labels)
	selects(t, decode[deployment](t, "kubernetes/poddisruptionbudget.yaml").Spec.Selector.MatchLabels, labels)
	type named struct{ Metadata struct{ Name string } }
	if account := decode[named](t, "kubernetes/serviceaccount.yaml"); account.Metadata.Name != d.Spec.Template.Spec.Account {
		t.Errorf("the pods run as %q", d.Spec.Template.Spec.Account)
	}
	scaled := decode[struct {
		Spec struct {
			Min    int                         `yaml:"minReplicas"`
			Target struct{ Kind, Name string } `yaml:"scaleTargetRef"`
		}
	}](t, "kubernetes/horizontalpodautoscaler.yaml").Spec
	if scaled.Min != 3 || scaled.Target.Kind != "Deployment" ||
		scaled.Target.Name != decode[named](t, "kubernetes/deployment.yaml").Metadata.Name {
		t.Errorf("the autoscaler has %+v", scaled)
	}
}

func selects(t *testing.T, selector, labels map[string]string) {
	t.Helper()
	if len(selector) == 0 {
		t.Error("a selector is empty")
	}
	for name, value := range selector {
		if labels[name] != value {
			t.Errorf("%s=%s selects none of the pods, which have %v", name, value, labels)
		}
	}
}

// TestKubernetesDrain checks that a proxy may finish what it has begun.
func TestKubernetesDrain(t *testing.T) {
	pod := decode[deployment](t, "kubernetes/deployment.yaml").Spec.Template.Spec
	container := pod.Containers[0]
	wants := time.Duration(container.Lifecycle.PreStop.Sleep.Seconds)*time.Second + configMap(t).DrainTimeout + lastWords
	if grace := time.Duration(pod.Grace) * time.Second; grace < wants {
		t.Errorf("terminationGracePeriodSeconds is %s; preStop, drain_timeout and the rest may take %s", grace, wants)
	}
	file := container.Args[slices.Index(container.Args, "--config")+1]
	if !slices.ContainsFunc(container.Mounts, func(m struct {
		Name string
		Path string `yaml:"mountPath"`
	},
	) bool {
		return m.Path+"/prism.yaml" == file
	}) {
		t.Errorf("%s is mounted nowhere", file)
	}
}

// TestKubernetesProbes asks a server what the probes ask.
func TestKubernetesProbes(t *testing.T) {
	container := decode[deployment](t, "kubernetes/deployment.yaml").Spec.Template.Spec.Containers[0]
	url := serve(t)
	for name, p := range map[string]probe{
		"startup": container.Startup, "liveness": container.Liveness, "readiness": container.Readiness,
	} {
		if p.HTTPGet.Port != "http" {
			t.Errorf("the %s probe asks at port %q", name, p.HTTPGet.Port)
		}
		if status := get(t, url+p.HTTPGet.Path); status != http.StatusOK {
			t.Errorf("the %s probe asks for %s and gets %d", name, p.HTTPGet.Path, status)
		}
	}
	if container.Readiness.HTTPGet.Path != "/readyz" || container.Readiness.Timeout <= 2 {
		t.Errorf("the readiness probe is %+v: /readyz takes up to 2 s to find a backend missing", container.Readiness)
	}
}

// serve runs a server until the test ends and returns where its HTTP API is.
func serve(t *testing.T) string {
	t.Helper()
	cfg := app.Default()
	cfg.Listen.GRPC, cfg.Listen.HTTP = "127.0.0.1:0", "127.0.0.1:0"
	ctx, stop := context.WithCancel(t.Context())
	at, ended := make(chan app.Addresses, 1), make(chan error, 1)
	go func() { ended <- app.Run(ctx, cfg, nil, func(a app.Addresses) { at <- a }) }()
	select {
	case a := <-at:
		t.Cleanup(func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		return "http://" + a.HTTP
	case err := <-ended:
		stop()
		t.Fatal(err)
		return ""
	}
}

func get(t *testing.T, url string) int {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}
