package deploy_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const manifests = root + "/deployments/kubernetes"

// strictly decodes every manifest of a file into the type that Kubernetes has for it, and counts them.
func strictly(src []byte) (int, error) {
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(src)))
	for n := 0; ; n++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if _, _, err := decoder.Decode(document, nil, nil); err != nil {
			return n, fmt.Errorf("manifest %d: %w", n+1, err)
		}
	}
}

// TestManifests decodes each file as it is written and what kustomize makes of all of them: the same number.
func TestManifests(t *testing.T) {
	files, err := filepath.Glob(manifests + "/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	written := 0
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		n, err := strictly(read(t, file))
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		written += n
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), manifests)
	if err != nil {
		t.Fatal(err)
	}
	built, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strictly(built)
	if err != nil {
		t.Errorf("kustomize build: %v", err)
	}
	if n != written || n < 8 {
		t.Errorf("kustomize builds %d manifests, the files hold %d: which does kustomization.yaml leave out?", n, written)
	}
}

// TestManifestFaults keeps the check above honest.
func TestManifestFaults(t *testing.T) {
	for file, faults := range map[string][][2]string{
		"deployment.yaml": {
			{"readOnlyRootFilesystem", "readonlyRootFileSystem"},
			{"periodSeconds: 10", "periodSeconds: soon"},
			{"apps/v1", "apps/v7"},
			{"      serviceAccountName: prism\n", "      serviceAccountName: prism\n      serviceAccountName: other\n"},
		},
		"networkpolicy.yaml": {{"policyTypes", "policyType"}},
	} {
		src := string(read(t, filepath.Join(manifests, file)))
		for _, fault := range faults {
			bad := strings.Replace(src, fault[0], fault[1], 1)
			if bad == src {
				t.Errorf("%s has no %q", file, fault[0])
			}
			if _, err := strictly([]byte(bad)); err == nil {
				t.Errorf("%s: %q instead of %q is not found", file, fault[1], fault[0])
			}
		}
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return src
}
