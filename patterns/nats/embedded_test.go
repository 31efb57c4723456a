package nats

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func embedded(t *testing.T, cfg EmbeddedConfig) *Server {
	t.Helper()
	s, err := StartEmbedded(within(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func inside(t *testing.T, s *Server) *Conn {
	t.Helper()
	c, err := s.Connect(within(t), Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestEmbeddedListen has clients inside and outside of the process's server.
func TestEmbeddedListen(t *testing.T) {
	s := embedded(t, EmbeddedConfig{Listen: "127.0.0.1:0"})
	here, there := messaging(inside(t, s)), messaging(opening(t, s.URL()))
	sub := subscribe(t, here, mr.Topic("x", "a"))
	if err := errors.Join(there.Publish(within(t), []mr.Message{message("x", "a", "hello")})...); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, sub, 1)[0]; string(got.Payload) != "hello" {
		t.Errorf("%+v", got)
	}
	taken := strings.TrimPrefix(s.URL(), "nats://")
	if _, err := StartEmbedded(within(t), EmbeddedConfig{Listen: taken}); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("the port is taken: %v", err)
	}
}

// TestEmbeddedStore keeps what is stored when there is a folder for it, and deletes the temporary one.
func TestEmbeddedStore(t *testing.T) {
	dir := t.TempDir()
	for round := range 2 {
		s := embedded(t, EmbeddedConfig{StoreDir: dir})
		if url := s.URL(); url != "" {
			t.Errorf("it listens at %s", url)
		}
		js, err := jetstream.New(inside(t, s).nc)
		if err != nil {
			t.Fatal(err)
		}
		bucket, err := js.CreateOrUpdateKeyValue(within(t), jetstream.KeyValueConfig{Bucket: "kept"})
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			_, err = bucket.Put(within(t), "key", []byte("value"))
		} else {
			_, err = bucket.Get(within(t), "key")
		}
		if err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		s.Shutdown()
		s.Shutdown()
	}
	s := embedded(t, EmbeddedConfig{})
	if _, err := os.Stat(s.scrap); err != nil {
		t.Error(err)
	}
	c := inside(t, s)
	s.Shutdown()
	if _, err := os.Stat(s.scrap); !os.IsNotExist(err) {
		t.Errorf("the temporary folder: %v", err)
	}
	if err := c.Ping(within(t)); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("ping: %v", err)
	}
}

func TestEmbeddedMaxPayload(t *testing.T) {
	if got := inside(t, embedded(t, EmbeddedConfig{})).MaxPayload(); got != 8<<20-4<<10 {
		t.Errorf("default: %d", got)
	}
	if got := inside(t, embedded(t, EmbeddedConfig{MaxPayload: 10 << 10})).MaxPayload(); got != 6<<10 {
		t.Errorf("10 KiB: %d", got)
	}
}

func TestEmbeddedInvalid(t *testing.T) {
	for _, row := range []struct {
		field string
		cfg   EmbeddedConfig
	}{
		{"listen", EmbeddedConfig{Listen: "localhost"}},
		{"listen", EmbeddedConfig{Listen: "localhost:nats"}},
		{"listen", EmbeddedConfig{Listen: "localhost:70000"}},
		{"max_payload", EmbeddedConfig{MaxPayload: -1}},
		{"max_payload", EmbeddedConfig{MaxPayload: 100}},
		{"max_payload", EmbeddedConfig{MaxPayload: 1 << 30}},
	} {
		_, err := StartEmbedded(within(t), row.cfg)
		var bad *mr.InvalidError
		if !errors.As(err, &bad) || bad.Field != row.field {
			t.Errorf("%+v: %v", row.cfg, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := StartEmbedded(ctx, EmbeddedConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	var log bytes.Buffer
	_, err := StartEmbedded(within(t), EmbeddedConfig{StoreDir: file(t, nil), Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the store is no folder: %v; log: %s", err, log.String())
	}
	if _, err := embedded(t, EmbeddedConfig{}).Connect(within(t), Config{Timeout: -1}); !errors.Is(err, mr.ErrInvalid) {
		t.Errorf("connect: %v", err)
	}
}

// storeOfChild is the variable of the environment that makes the test binary a process which stores until it is killed.
const storeOfChild = "PRISM_NATS_TEST_STORE"

// runChild stores one key after the other, and prints each when it was acknowledged.
func runChild(dir string) {
	ctx := context.Background()
	s, err := StartEmbedded(ctx, EmbeddedConfig{StoreDir: dir})
	if err != nil {
		panic(err)
	}
	c, err := s.Connect(ctx, Config{})
	if err != nil {
		panic(err)
	}
	js, err := jetstream.New(c.nc)
	if err != nil {
		panic(err)
	}
	d, err := OpenDurability(ctx, c, DurabilityConfig{Namespace: "kept"})
	if err != nil {
		panic(err)
	}
	bucket, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "kept"})
	for n := 0; err == nil; n++ {
		key := fmt.Sprint("key-", n)
		if _, err = bucket.Put(ctx, key, []byte(key)); err != nil {
			break
		}
		if err = d.Finish(ctx, mr.Record{ID: key, Summary: []byte(key)}); err != nil {
			break
		}
		if err = d.Enqueue(ctx, []mr.Message{kept(key)})[0]; err == nil {
			_, err = fmt.Fprintln(os.Stdout, key)
		}
	}
	panic(err)
}

// kept is a message that the process stores.
func kept(key string) mr.Message {
	return mr.Message{Topic: mr.Topic("kept", "a"), Identity: "a", ID: key, Payload: []byte(key)}
}

// TestEmbeddedKilled kills a process with an embedded server: all that was acknowledged is there when another one starts.
func TestEmbeddedKilled(t *testing.T) {
	dir := t.TempDir()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), storeOfChild+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if keys = append(keys, lines.Text()); len(keys) == 500 {
			child.Process.Kill()
		}
	}
	child.Wait()
	if len(keys) < 500 {
		t.Fatalf("the process stored %d keys", len(keys))
	}
	c := inside(t, embedded(t, EmbeddedConfig{StoreDir: dir}))
	js, err := jetstream.New(c.nc)
	if err != nil {
		t.Fatal(err)
	}
	d := durability(t, c, DurabilityConfig{Namespace: "kept"})
	stored, err := d.Stored(within(t), mapped(keys, kept))
	if err != nil || slices.Contains(stored, false) {
		t.Errorf("stored messages are missing: %v, %v", stored, err)
	}
	for _, key := range []string{keys[0], keys[len(keys)-1]} {
		if record, _, err := d.Get(within(t), key); err != nil || string(record.Summary) != key {
			t.Errorf("the multicast %s: %v", key, err)
		}
	}
	bucket, err := js.KeyValue(within(t), "kept")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if got, err := bucket.Get(within(t), key); err != nil || string(got.Value()) != key {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// TestStoreIsLocked has two servers that want one folder: the second would overwrite what the first keeps.
func TestStoreIsLocked(t *testing.T) {
	cfg := EmbeddedConfig{StoreDir: t.TempDir()}
	first, err := StartEmbedded(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := StartEmbedded(t.Context(), cfg); !errors.Is(err, mr.ErrUnavailable) || !strings.Contains(err.Error(), cfg.StoreDir) {
		t.Errorf("got %v, %v", second, err)
	}
	first.Shutdown()
	again, err := StartEmbedded(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	again.Shutdown()
}
