package main

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestServeAdmin starts a server with an address for operators: it says where that is, and its metrics name its version.
func TestServeAdmin(t *testing.T) {
	_, out, errOut := realPrism(t, "serve", "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0")
	at := regexp.MustCompile(`profiles are on (http://\S+)\n`).FindStringSubmatch(out.await("\n", 3))
	if at == nil {
		t.Fatalf("it does not say where: %s", out)
	}
	errOut.await("admin="+strings.TrimPrefix(at[1], "http://"), 1)
	response, err := http.Get(at[1] + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(body), `prism_build_info{`) {
		t.Errorf("%v, %s", err, body)
	}
	http.DefaultClient.CloseIdleConnections()
}
