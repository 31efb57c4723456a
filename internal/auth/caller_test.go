package auth

import (
	"log/slog"
	"strings"
	"testing"
)

func TestContext(t *testing.T) {
	if _, ok := FromContext(t.Context()); ok {
		t.Error("somebody calls")
	}
	if c, ok := FromContext(NewContext(t.Context(), alice)); !ok || c.Subject != "alice" {
		t.Error("nobody calls")
	}
}

func TestCallerInLog(t *testing.T) {
	log, logs := newLog(t)
	log.LogAttrs(t.Context(), slog.LevelInfo, "call", slog.Any("caller", alice))
	if got := logs.buf.String(); !strings.Contains(got, `"caller":{"subject":"alice","method":"jwt"}`) || strings.Contains(got, "acme") {
		t.Error(got)
	}
}
