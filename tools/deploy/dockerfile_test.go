package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// anyImage stands for a registry: it has every image, for the platform that is asked for.
type anyImage struct{}

func (anyImage) ResolveImageConfig(_ context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	image := ocispecs.Image{Platform: ocispecs.Platform{OS: "linux", Architecture: "amd64"}}
	if opt.ImageOpt != nil && opt.ImageOpt.Platform != nil {
		image.Platform = *opt.ImageOpt.Platform
	}
	config, err := json.Marshal(image)
	return ref, "", config, err
}

// lintDockerfile does what `docker build --check` does.
func lintDockerfile(ctx context.Context, src []byte) ([]string, error) {
	source := llb.NewSourceMap(nil, "Dockerfile", "Dockerfile", src)
	source.Definition = &llb.Definition{}
	results, err := dockerfile2llb.DockerfileLint(ctx, src, dockerfile2llb.ConvertOpt{
		MetaResolver: anyImage{}, SourceMap: source,
		Config: dockerui.Config{TargetPlatforms: []ocispecs.Platform{{OS: "linux", Architecture: "arm64"}}},
	})
	if err != nil {
		return nil, err
	}
	var found []string
	for _, w := range results.Warnings {
		found = append(found, w.RuleName+": "+w.Detail)
	}
	if results.Error != nil {
		found = append(found, results.Error.Message)
	}
	return found, nil
}

func TestDockerfile(t *testing.T) {
	found, err := lintDockerfile(t.Context(), read(t, root+"/Dockerfile"))
	if err != nil || len(found) > 0 {
		t.Error(err, strings.Join(found, "\n"))
	}
}

// TestDockerfileFaults keeps the check above honest.
func TestDockerfileFaults(t *testing.T) {
	src := string(read(t, root+"/Dockerfile"))
	for _, fault := range [][2]string{
		{"ENTRYPOINT", "ENTRYPOIND"},
		{"COPY --from=build", "COPY --form=build"},
		{"USER 65532:65532", "user 65532:65532"},
		{"AS build", "as build"},
		{`"$COMMIT"`, `"$COMIT"`},
		{`CMD ["serve"`, `CMD serve ["x"`},
	} {
		bad := strings.Replace(src, fault[0], fault[1], 1)
		if bad == src {
			t.Errorf("the file has no %q", fault[0])
		}
		if found, err := lintDockerfile(t.Context(), []byte(bad)); err == nil && len(found) == 0 {
			t.Errorf("%q instead of %q is not found", fault[1], fault[0])
		}
	}
}

// TestDockerignore asks the go tool what the binary is made of: none of that may stay outside.
func TestDockerignore(t *testing.T) {
	patterns, err := ignorefile.ReadAll(bytes.NewReader(read(t, root+"/.dockerignore")))
	if err != nil {
		t.Fatal(err)
	}
	ignored, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	const format = `{{with .Module}}{{if .Main}}{{$d := $.Dir}}{{range $.GoFiles}}{{$d}}/{{.}}
{{end}}{{range $.EmbedFiles}}{{$d}}/{{.}}
{{end}}{{end}}{{end}}`
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", format, "./cmd/prism")
	list.Dir = root
	list.Env = append(list.Environ(), "GOFLAGS=")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	files := append(strings.Fields(string(out)), top+"/go.mod", top+"/go.sum")
	if len(files) < 100 {
		t.Fatalf("the binary is made of %d files only", len(files))
	}
	for _, file := range files {
		own, err := filepath.Rel(top, file)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := ignored.MatchesOrParentMatches(own); out || err != nil {
			t.Error(fmt.Sprintf("%s is needed, and ignored", own), err)
		}
	}
	for _, own := range []string{".git/config", ".env", "tests/acceptance/harness_test.go", "dist/prism", "client/client_test.go"} {
		if out, err := ignored.MatchesOrParentMatches(own); !out || err != nil {
			t.Error(own, "is not ignored", err)
		}
	}
}
