package nats

import (
	"errors"
	"reflect"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func TestRecord(t *testing.T) {
	for name, r := range map[string]record{
		"put":     {TTL: 1000, Registered: 1, Expires: 1_000_001, Metadata: string(mr.AppendMetadata(nil, map[string]any{"a": int64(1)}))},
		"renewal": {TTL: 1 << 60, Registered: 1 << 60, Expires: 1 << 62, Revision: 1<<64 - 1, Metadata: "\x00"},
		"endless": {TTL: -1, Registered: -1},
	} {
		got, err := parseRecord(r.append(nil))
		if err != nil || got != r {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		data := r.append(nil)
		for n := range len(data) - len(r.Metadata) {
			if _, err := parseRecord(data[:n]); !errors.Is(err, errForeign) {
				t.Errorf("%s, cut off after %d bytes: %v", name, n, err)
			}
		}
	}
	for text, want := range map[string]error{
		"": errForeign, "hello": errForeign, "{}": errForeign, `{"t":"a"}`: errForeign, "\xf5\x02\x00\x00\x00\x00": errForeign,
		`{"t":1000,"r":1}`: mr.ErrUnsupported, "\xf5\x03whatever": mr.ErrUnsupported,
	} {
		if r, err := parseRecord([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%q: %+v, %v", text, r, err)
		}
	}
}

func TestRecordStates(t *testing.T) {
	put, renewal := (&record{TTL: 1000, Registered: 1, Expires: 1_000_001}).append(nil), (&record{TTL: -1, Revision: 7}).append(nil)
	deleted := map[string][]string{headerOperation: {"DEL"}}
	for name, row := range map[string]struct {
		key     string
		m       streamMsg
		present bool
		expired bool
		kind    byte // of the log entry; 0 for none
	}{
		"put":     {"a", streamMsg{seq: 7, data: put}, true, false, entryPut},
		"renewal": {"a", streamMsg{seq: 8, data: renewal}, true, false, entryRenew},
		"delete":  {"a", streamMsg{seq: 9, header: deleted}, false, false, entryDelete},
		"purge":   {"a", streamMsg{seq: 9, header: map[string][]string{headerOperation: {"PURGE"}}, data: []byte("x")}, false, false, entryDelete},
		"expiry":  {"a", streamMsg{seq: 9, header: map[string][]string{headerOperation: {"DEL"}, headerReason: {reasonExpired}}}, false, true, entryExpire},
		"foreign": {"a", streamMsg{seq: 9, data: []byte("hello")}, false, false, 0},
		"no TTL":  {"a", streamMsg{seq: 9, data: []byte(`{}`)}, false, false, 0},
		"empty":   {"a", streamMsg{seq: 9}, false, false, 0},
		"no name": {"a.b", streamMsg{seq: 9, data: put}, true, false, 0},

		"outage":            {outagesName, streamMsg{seq: 9, data: outages{{1, 2}}.encode()}, false, false, entryExtend},
		"outages forgotten": {outagesName, streamMsg{seq: 9, header: deleted}, false, false, 0},
	} {
		s, err := parseState(row.m)
		if err != nil || s.present != row.present || s.expired != row.expired || s.seq != row.m.seq {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
		e, ok, err := entryOf(row.key, row.m)
		if err != nil || ok != (row.kind != 0) || ok && e.Kind != row.kind {
			t.Errorf("%s: %+v, %v, %v", name, e, ok, err)
		}
	}
	if _, _, err := entryOf(outagesName, streamMsg{data: []byte("{")}); err == nil {
		t.Error("what is no record of outages is one")
	}
}

func TestLogEntry(t *testing.T) {
	all := outages{{1_000_000, 2_000_000}, {5_000_000, 9_000_000}}
	for name, row := range map[string]struct {
		e    logEntry
		want mr.Change
	}{
		"put": {logEntry{Seq: 300, Kind: entryPut, Name: "a=2A", Record: &record{TTL: 1000, Registered: 1, Expires: 4e6, Metadata: "x"}}, mr.Change{
			Kind: mr.Put, Revision: 300, Identity: mr.Identity{
				ID: "a*", Encoded: "x", TTL: time.Second, RegisteredAt: instant(1), ExpiresAt: instant(4e6), Revision: 300,
			},
		}},
		"prolonged": {logEntry{Seq: 1, Kind: entryRenew, Name: "a", Record: &record{TTL: 1000, Expires: 6e6, Revision: 1}}, mr.Change{
			Kind: mr.Renew, Revision: 1, Identity: mr.Identity{ID: "a", TTL: time.Second, ExpiresAt: instant(10e6)},
		}},
		"delete": {logEntry{Seq: 1, Kind: entryDelete, Name: "a"}, mr.Change{Kind: mr.Delete, Revision: 1, Identity: mr.Identity{ID: "a"}}},
		"expire": {logEntry{Seq: 1, Kind: entryExpire, Name: "a"}, mr.Change{Kind: mr.Expire, Revision: 1, Identity: mr.Identity{ID: "a"}}},
		"extend": {logEntry{Seq: 1, Kind: entryExtend, Name: outagesName, Outages: all}, mr.Change{
			Kind: mr.Extend, Revision: 1, Since: instant(5e6), Until: instant(9e6),
		}},
	} {
		data := row.e.append(nil)
		got, err := parseEntry(data)
		if err != nil || !reflect.DeepEqual(got, row.e) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if seq, ok := parseSeq(data); !ok || seq != row.e.Seq {
			t.Errorf("%s: sequence %d, %v", name, seq, ok)
		}
		if c, err := got.change(all); err != nil || !reflect.DeepEqual(c, row.want) {
			t.Errorf("%s: %+v, %v\nwant %+v", name, c, err, row.want)
		}
	}
	for text, want := range map[string]error{
		"": errForeign, "{}": errForeign, "\xf6\x02p": errForeign, "\xf6\x02p\x01\x02a": errForeign, "\xf6\x03p\x01\x01a": mr.ErrUnsupported,
		"\xf6\x02p\x01\x01a\xf5\x03": mr.ErrUnsupported, "\xf6\x02p\x01\x01a": errForeign,
	} {
		if e, err := parseEntry([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%q: %+v, %v", text, e, err)
		}
	}
	for name, e := range map[string]logEntry{
		"kind": {Seq: 1, Kind: '?', Name: "a"}, "name": {Seq: 1, Kind: entryDelete, Name: "*"}, "record": {Seq: 1, Kind: entryPut, Name: "a"},
	} {
		if c, err := e.change(nil); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// TestOutages counts outages in. Instants are seconds, with a TTL of ten.
func TestOutages(t *testing.T) {
	for name, row := range map[string]struct {
		of            outages
		expires, want int64
	}{
		"none":                                {nil, 50, 50},
		"never ends":                          {outages{{1, 2}}, 0, 0},
		"ended before":                        {outages{{50, 90}}, 49, 49},
		"ended at the begin":                  {outages{{50, 90}}, 50, 50},
		"ended in it":                         {outages{{50, 90}}, 51, 100},
		"lasts longer than it":                {outages{{50, 90}}, 95, 100},
		"begun after it":                      {outages{{50, 90}}, 105, 105},
		"prolonged by both":                   {outages{{50, 90}, {95, 200}}, 51, 210},
		"ended between the two":               {outages{{50, 90}, {101, 200}}, 51, 100},
		"begun between the two, and ended":    {outages{{50, 90}, {103, 200}}, 102, 102},
		"begun between the two, not yet over": {outages{{50, 90}, {101, 200}}, 102, 210},
	} {
		var of outages
		for _, o := range row.of {
			of = append(of, outage{o.Since * 1e6, o.Until * 1e6})
		}
		if got := of.end(row.expires*1e6, 10_000); got != row.want*1e6 {
			t.Errorf("%s: %d, want %d", name, got/1e6, row.want)
		}
	}
	var many outages
	for n := range int64(maxOutages + 2) {
		many = many.with(outage{n * 100, n*100 + 50})
	}
	if len(many) != maxOutages || many[0] != (outage{0, 250}) || many.last().Since != (maxOutages+1)*100 {
		t.Errorf("%d outages, from %+v to %+v", len(many), many[0], many.last())
	}
	before := outages{{1, 2}}
	longer := before.with(outage{2, 3})
	if len(longer) != 1 || longer[0] != (outage{1, 3}) || before[0] != (outage{1, 2}) {
		t.Errorf("an outage that goes on: %v, before %v", longer, before)
	}
}
