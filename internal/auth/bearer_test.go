package auth

import (
	"errors"
	"strings"
	"testing"
)

func TestParseBearer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		values []string
		want   string
		detail string // of the refusal; empty: none
	}{
		{"none", nil, "", ""},
		{"a token", []string{"Bearer abc.DEF-1_2~3+4/5=="}, "abc.DEF-1_2~3+4/5==", ""},
		{"any case", []string{"bEARER abc"}, "abc", ""},
		{"more spaces", []string{"Bearer   abc "}, "abc", ""},
		{"longest", []string{"Bearer " + strings.Repeat("a", maxBearerBytes)}, strings.Repeat("a", maxBearerBytes), ""},
		{"empty", []string{""}, "", "another scheme"},
		{"no token", []string{"Bearer"}, "", "characters"},
		{"blank", []string{"Bearer  "}, "", "characters"},
		{"padding only", []string{"Bearer =="}, "", "characters"},
		{"padding within", []string{"Bearer a=b"}, "", "characters"},
		{"no space", []string{"Bearerabc"}, "", "another scheme"},
		{"basic", []string{"Basic YTpi"}, "", "another scheme"},
		{"two", []string{"Bearer a", "Bearer b"}, "", "2 authorization headers"},
		{"two tokens", []string{"Bearer a b"}, "", "characters"},
		{"a list", []string{"Bearer a,b"}, "", "characters"},
		{"a line break", []string{"Bearer a\r\nb"}, "", "characters"},
		{"not ASCII", []string{"Bearer ä"}, "", "characters"},
		{"too long", []string{"Bearer " + strings.Repeat("a", maxBearerBytes+1)}, "", "16392 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseBearer(tt.values...)
			if tt.detail != "" {
				refused(t, err, Invalid, tt.detail)
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func FuzzParseBearer(f *testing.F) {
	for _, seed := range []string{"Bearer abc", "bearer a.b.c", "Bearer ", "Basic a", "Bearer a=b", "Bearer \x00", "Bearer a b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		token, err := ParseBearer(value)
		if err != nil {
			if !errors.Is(err, ErrUnauthenticated) || token != "" {
				t.Fatalf("got %q, %v", token, err)
			}
			return
		}
		if token == "" || len(token) > maxBearerBytes || strings.ContainsAny(token, " \t\r\n,\"\x00") || !strings.HasSuffix(strings.TrimRight(value, " "), token) {
			t.Fatalf("%q gives %q", value, token)
		}
	})
}
