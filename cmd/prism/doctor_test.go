package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prism-data-layer/prism/internal/doctor"
	"github.com/prism-data-layer/prism/internal/testenv"
)

func TestDoctor(t *testing.T) {
	addr, _ := server(t, durable)
	if out := ok(t, addr, "doctor"); strings.Count(out, "\nok") != 7 || !strings.Contains(out, "default: deliver what was stored: ") {
		t.Errorf("got\n%s", out)
	}
	var findings []doctor.Finding
	if err := json.Unmarshal([]byte(ok(t, addr, "doctor", "-o", "json")), &findings); err != nil || len(findings) != 8 {
		t.Errorf("%v, %v", findings, err)
	}
	r := prism(t, addr, "", "doctor", "-n", "nope")
	if r.code != exitError || !strings.Contains(r.out, "failed   nope: find the namespace") || !strings.Contains(r.out, "`prism namespaces` lists them") {
		t.Errorf("got %+v", r)
	}
	if r := prism(t, addr, "", "doctor", "--metadata", "[1]"); r.code != exitError || !strings.Contains(r.err, "--metadata is not a JSON object") {
		t.Errorf("got %+v", r)
	}
	if r := prism(t, "127.0.0.1:1", "", "doctor", "--timeout", "1s"); r.code != exitError || !strings.Contains(r.out, "failed   reach the server") {
		t.Errorf("got %+v", r)
	}
}

func TestDoctorOfAConfiguration(t *testing.T) {
	certificate := testenv.NewCertificate(t)
	const slots = "{registry: {type: memory}, messaging: {type: memory}}"
	file := func(text, slots string) string {
		t.Helper()
		name := filepath.Join(t.TempDir(), "prism.yaml")
		text += "namespaces: [{name: a, pattern: multicast-registry, backend_slots: " + slots + "}]\n"
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	tls := "tls: {cert_file: " + certificate.Cert + ", key_file: " + certificate.Key + "}\n"
	secured := "listen: {grpc: 0.0.0.0:1}\ninsecure: true\n" + tls
	out := ok(t, "", "doctor", "--config", file(secured, slots))
	for _, line := range []string{"ok       configuration: ", "warning  certificate: for ", "Renew it", "ok       open the backends: ", "ok       a: deliver: "} {
		if !strings.Contains(out, line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
	for name, row := range map[string]struct{ file, want string }{
		"no file":     {filepath.Join(t.TempDir(), "none"), "failed   configuration: "},
		"a fault":     {file("x: 1\n", slots), "unknown key x"},
		"no key":      {file("tls: {cert_file: "+certificate.Cert+", key_file: none}\n", slots), "failed   certificate: "},
		"no backend":  {file("", "{registry: {type: redis, host: '127.0.0.1:1'}, messaging: {type: memory}}"), "failed   open the backends: "},
		"no audience": {file("auth: {jwt: {issuer: 'http://127.0.0.1:1', audiences: []}}\n", slots), "auth.jwt.audiences"},
	} {
		if r := prism(t, "", "", "doctor", "--config", row.file); r.code != exitError || !strings.Contains(r.out, row.want) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
