package client

import (
	"context"
	"crypto/tls"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestTokenInPlainText refuses to send a token to another machine without TLS.
func TestTokenInPlainText(t *testing.T) {
	t.Parallel()
	token := WithToken("prism_secret")
	for _, row := range []struct {
		server  string
		options []Option
		refused bool
	}{
		{"127.0.0.1:1", []Option{token}, false},
		{"localhost:1", []Option{token}, false},
		{"[::1]:1", []Option{token}, false},
		{"", []Option{token}, false},
		{"unix:/tmp/x.sock", []Option{token}, false},
		{"prism.example:1", []Option{token}, true},
		{"10.0.0.1", []Option{token}, true},
		{"dns:///127.0.0.1.example:1", []Option{token}, true},
		{"localhost.example:1", []Option{token}, true},
		{"prism.example:1", []Option{token, WithTLS(new(tls.Config))}, false},
		{"prism.example:1", []Option{token, WithPlaintextToken()}, false},
		{"prism.example:1", nil, false},
	} {
		c, err := Dial(row.server, row.options...)
		if c != nil {
			_ = c.Close()
		}
		invalid, ok := errors.AsType[*InvalidError](err)
		if ok != row.refused || ok && invalid.Field != "token" {
			t.Errorf("%s with %d options: %v", row.server, len(row.options), err)
		}
	}
}

// TestEndlessWithTokens goes on when a source may have a better token, and gives up where there is only one.
func TestEndlessWithTokens(t *testing.T) {
	t.Parallel()
	source := WithTokenSource(func(context.Context) (string, error) { return "x", nil })
	for name, row := range map[string]struct {
		option  Option
		code    codes.Code
		endless bool
	}{
		"static":         {WithToken("x"), codes.Unauthenticated, true},
		"source":         {source, codes.Unauthenticated, false},
		"source, denied": {source, codes.PermissionDenied, true},
	} {
		c, err := Dial("", row.option)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.endless(c.failed(status.Error(row.code, "no"))); got != row.endless {
			t.Errorf("%s: endless %t", name, got)
		}
		_ = c.Close()
	}
}
