package proxy

import (
	"strings"
	"testing"
)

func TestCheckJSON(t *testing.T) {
	for body, fault := range map[string]string{
		`{"n": 9007199254740992, "m": -9007199254740992}`:   "",
		`{"n": 9007199254740993}`:                           "9007199254740993 would be rounded",
		`{"n": [{"m": -9007199254740993}]}`:                 "-9007199254740993 would be rounded",
		`{"n": 18446744073709551616}`:                       "",
		`{"n": 123456789012345678901234567890}`:             "would be rounded",
		`{"n": 0.12345678901234567890}`:                     "",
		`{"n": 1e300}`:                                      "",
		`{"n": "9007199254740993"}`:                         "",
		`{"n"`:                                              "",
		`no JSON`:                                           "",
		strings.Repeat("[", 100) + strings.Repeat("]", 100): "",
		strings.Repeat("[", 101) + strings.Repeat("]", 101): "deeper than 100",
		strings.Repeat(`{"a":`, 9000):                       "deeper than 100",
		`{"n": ` + strings.Repeat("9", 5_000_000) + `}`:     "would be rounded",
	} {
		err := checkJSON([]byte(body))
		if (err == nil) != (fault == "") || err != nil && !strings.Contains(err.Error(), fault) {
			t.Errorf("%.60s: got %v, want %q", body, err, fault)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("%.60s: the error has %d bytes", body, len(err.Error()))
		}
	}
}
