package multicastregistry

import (
	"strings"
	"testing"
)

func TestTraceParent(t *testing.T) {
	t.Parallel()
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, text := range []string{good, "01" + good[2:], good[:53] + "00"} {
		if got := TraceParent(text); got != text {
			t.Errorf("%q comes back as %q", text, got)
		}
	}
	for _, text := range []string{
		"", "x", good[1:], good + "-", good + "-more", "ff" + good[2:], strings.ToUpper(good), strings.Replace(good, "-", "a", 1),
		strings.Replace(good, "c", "\n", 1), strings.Replace(good, "c", "-", 1), strings.Replace(good, "af", "é", 1),
	} {
		if got := TraceParent(text); got != "" {
			t.Errorf("%q is taken for a traceparent", text)
		}
	}
}
