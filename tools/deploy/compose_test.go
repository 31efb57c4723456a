package deploy_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

const composeFile = root + "/deployments/docker-compose.yml"

// loadCompose reads a compose file as `docker compose config` does: by its schema, with references and values checked.
func loadCompose(ctx context.Context, file string) (*types.Project, error) {
	options, err := cli.NewProjectOptions([]string{file})
	if err != nil {
		return nil, err
	}
	return options.LoadProject(ctx)
}

func TestCompose(t *testing.T) {
	project, err := loadCompose(t.Context(), composeFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"proxy-1", "proxy-2", "proxy-3", "redis", "nats", "prometheus", "grafana"} {
		if _, err := project.GetService(want); err != nil {
			t.Error(err)
		}
	}
	for name, service := range project.Services {
		for _, mount := range service.Volumes {
			if mount.Type != types.VolumeTypeBind {
				continue
			}
			// The folder of dashboards may be empty, and then git does not keep it.
			if _, err := os.Stat(filepath.Dir(mount.Source)); err != nil {
				t.Errorf("%s mounts what is not there: %v", name, err)
			}
		}
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes %s on %q: this machine alone is meant", name, port.Published, port.HostIP)
			}
		}
	}
}

// TestComposeFaults keeps the check above honest.
func TestComposeFaults(t *testing.T) {
	src := string(read(t, composeFile))
	for _, fault := range [][2]string{
		{"read_only:", "readonly:"},
		{"healthcheck:\n    test", "healthcheck:\n    tests"},
		{"interval: 10s", "interval: soon"},
		{"depends_on: [prometheus]", "depends_on: [prometeus]"},
		{"- redis:/data", "- rediz:/data"},
	} {
		bad := strings.Replace(src, fault[0], fault[1], 1)
		if bad == src {
			t.Errorf("the file has no %q", fault[0])
		}
		file := filepath.Join(t.TempDir(), "docker-compose.yml")
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadCompose(t.Context(), file); err == nil {
			t.Errorf("%q instead of %q is not found", fault[1], fault[0])
		}
	}
}
