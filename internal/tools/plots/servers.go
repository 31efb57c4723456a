package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Kinds of processes.
const (
	kindProxy    = "proxy"    // operations go to it
	kindFollower = "follower" // a proxy that serves nobody, but follows the registry
	kindRedis    = "redis"
	kindNATS     = "nats"
)

// slots is what proxies are configured with.
type slots struct{ registry, messaging string }

const onMemory = "{type: memory}"

func (s slots) config() string {
	return fmt.Sprintf(`drain_timeout: 1s
namespaces:
  - name: default
    pattern: multicast-registry
    timeout: 60s
    backend_slots:
      registry: %s
      messaging: %s
`, s.registry, s.messaging)
}

// system is the servers of one measurement.
type system struct {
	lab *lab
	// servers are the addresses of the proxies that operations go to.
	servers []string
	// kinds tells of each address of a process what it is.
	kinds   map[string]string
	running []*process
}

// process is a server that was started.
type process struct {
	address string
	command *exec.Cmd
	exited  chan struct{}
	log     bytes.Buffer
}

// startup is how long a server may take to answer.
const startup = 20 * time.Second

// start runs a program until the system is stopped. It waits until the program answers, if the address is known already;
// otherwise the program's output tells it.
func (s *system) start(
	ctx context.Context, address, kind, program string, args ...string,
) (started *process, output <-chan string, err error) {
	p := &process{address: address, exited: make(chan struct{})}
	p.command = exec.CommandContext(ctx, program, args...) //nolint:gosec // prism or redis-server, on our own files
	p.command.Stderr = &p.log
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, nil, err
	}
	said := make(chan string, 16)
	go func() {
		defer close(p.exited)
		for text := bufio.NewScanner(out); text.Scan(); {
			select {
			case said <- text.Text():
			default: // nobody reads that much
			}
		}
		_ = p.command.Wait() // how it ended is in its log
	}()
	s.running = append(s.running, p)
	if address != "" {
		s.kinds[address] = kind
		return p, said, s.answers(ctx, p)
	}
	return p, said, nil
}

// answers waits until a server accepts connections.
func (s *system) answers(ctx context.Context, p *process) error {
	deadline := time.Now().Add(startup)
	for {
		dialer := net.Dialer{Timeout: time.Second}
		conn, err := dialer.DialContext(ctx, "tcp", p.address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s has ended: %s", p.command.Path, p.log.String())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer at %s", p.command.Path, p.address)
		}
	}
}

// proxy starts a proxy. Operations go to it, unless it only follows.
func (s *system) proxy(ctx context.Context, kind string, slots slots) error {
	file := filepath.Join(s.lab.dir, "prism.yaml")
	if err := os.WriteFile(file, []byte(slots.config()), 0o600); err != nil {
		return err
	}
	p, said, err := s.start(ctx, "", kind, s.lab.program, "serve", "--config", file, "--log-level", "error",
		"--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0")
	if err != nil {
		return err
	}
	select {
	case line := <-said:
		var found bool
		if p.address, found = strings.CutPrefix(line, "gRPC listens on "); !found {
			return fmt.Errorf("prism serve says %q", line)
		}
	case <-p.exited:
		return fmt.Errorf("prism serve has ended: %s", p.log.String())
	case <-time.After(startup):
		return errors.New("prism serve does not tell its address")
	}
	s.kinds[p.address] = kind
	if kind == kindProxy {
		s.servers = append(s.servers, p.address)
	}
	return nil
}

// redis starts a Redis that keeps nothing, and returns its address.
func (s *system) redis(ctx context.Context) (string, error) {
	address, port, err := free()
	if err != nil {
		return "", err
	}
	_, _, err = s.start(ctx, address, kindRedis, "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", s.lab.dir,
		"--save", "", "--appendonly", "no")
	return address, err
}

// nats starts a NATS server, which is the one inside of a prism process that does nothing else, and returns its address.
func (s *system) nats(ctx context.Context) (string, error) {
	address, _, err := free()
	if err != nil {
		return "", err
	}
	file := filepath.Join(s.lab.dir, "nats.yaml")
	slot := "{type: nats, embedded: true, listen: \"" + address + "\"}"
	if err := os.WriteFile(file, []byte(slots{slot, slot}.config()), 0o600); err != nil {
		return "", err
	}
	_, _, err = s.start(ctx, address, kindNATS, s.lab.program, "serve", "--config", file, "--log-level", "error",
		"--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0")
	return address, err
}

// free finds a port that nobody listens on.
func free() (address, port string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		return "", "", err
	}
	address = l.Addr().String()
	_, port, err = net.SplitHostPort(address)
	return address, port, errors.Join(err, l.Close())
}

// others are the addresses of processes that operations do not go to.
func (s *system) others() (addresses []string) {
	for _, p := range s.running {
		if s.kinds[p.address] != kindProxy {
			addresses = append(addresses, p.address)
		}
	}
	return addresses
}

// stop ends all processes, the last one that was started first.
func (s *system) stop() {
	for len(s.running) > 0 {
		p := s.running[len(s.running)-1]
		s.running = s.running[:len(s.running)-1]
		_ = p.command.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-p.exited:
		case <-time.After(10 * time.Second):
			_ = p.command.Process.Kill() // same
			<-p.exited
		}
	}
}
