package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/prism-data-layer/prism/internal/bench"
)

// units: what one of each costs over Redis and NATS, for the page on capacity.
func units(ctx context.Context, l *lab) error {
	for _, followers := range []int{0, 2} {
		if err := unitsWith(ctx, l, followers); err != nil {
			return fmt.Errorf("%d followers: %w", followers, err)
		}
	}
	n := 2000
	if l.quick {
		n = 100
	}
	return streams(ctx, l, "connections", n, n)
}

// unitsWith measures through one proxy, while a number of others follow.
func unitsWith(ctx context.Context, l *lab, followers int) error {
	s := l.system()
	defer s.stop()
	slots, err := s.backends(ctx)
	if err != nil {
		return err
	}
	if err := s.proxy(ctx, kindProxy, slots); err != nil {
		return err
	}
	for range followers {
		if err := s.proxy(ctx, kindFollower, slots); err != nil {
			return err
		}
	}
	redis := s.addressOf(kindRedis)
	if followers == 0 {
		if err := s.memoryOfIdentities(ctx, redis); err != nil {
			return err
		}
	}
	for _, work := range []struct {
		operation   string
		concurrency int
	}{{bench.Heartbeat, 64}, {bench.Register, 64}, {bench.Enumerate, 16}, {bench.Multicast, 4}} {
		var before map[string]float64
		p, err := s.measure(ctx, work.operation, followers, 1, bench.Plan{
			Shares: once(work.operation), Concurrency: work.concurrency, Identities: own, Targets: 100,
			Duration: l.long(5 * time.Second), Keep: true,
		}, func(string) { before, _ = redisInfo(ctx, redis, "all") }) // what could not be read fails below
		if err != nil {
			return err
		}
		after, err := redisInfo(ctx, redis, "all")
		if err != nil {
			return err
		}
		p.Other = map[string]float64{
			"redis_calls":     (after["total_commands_processed"] - before["total_commands_processed"]) / float64(p.Operations),
			"redis_bytes_out": (after["total_net_output_bytes"] - before["total_net_output_bytes"]) / float64(p.Operations),
		}
		l.add(p)
	}
	return nil
}

// memoryOfIdentities takes down how the memory of all grows with what is registered.
func (s *system) memoryOfIdentities(ctx context.Context, redis string) error {
	registered := 0
	for _, n := range s.lab.sizes(0, 10_000, 100_000) {
		if err := s.fill(ctx, registered, n); err != nil {
			return err
		}
		registered = n
		used, err := s.memory()
		if err != nil {
			return err
		}
		info, err := redisInfo(ctx, redis, "memory")
		if err != nil {
			return err
		}
		used["redis_used"] = info["used_memory"]
		if n > 0 {
			if used["redis_log"], err = redisNumber(ctx, redis, "MEMORY USAGE {prism:default}:log SAMPLES 0"); err != nil {
				return err
			}
		}
		s.lab.add(Point{Series: "memory", X: n, Memory: used})
	}
	return nil
}

// addressOf finds the only process of a kind.
func (s *system) addressOf(kind string) string {
	for address, k := range s.kinds {
		if k == kind {
			return address
		}
	}
	return ""
}

// ask sends a command to Redis and reads the first line of the answer.
func ask(ctx context.Context, address, command string, read func(line string, rest *bufio.Reader) error) error {
	dialer := net.Dialer{Timeout: startup}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	if err := read(strings.TrimSpace(line), in); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// redisNumber asks for a number.
func redisNumber(ctx context.Context, address, command string) (v float64, err error) {
	err = ask(ctx, address, command, func(line string, _ *bufio.Reader) error {
		number, found := strings.CutPrefix(line, ":")
		if !found {
			return fmt.Errorf("answered %q, not a number", line)
		}
		v, err = strconv.ParseFloat(number, 64)
		return err
	})
	return v, err
}

// redisInfo asks for the numbers of a section.
func redisInfo(ctx context.Context, address, section string) (info map[string]float64, err error) {
	err = ask(ctx, address, "INFO "+section, func(line string, rest *bufio.Reader) error {
		size, err := strconv.Atoi(strings.TrimPrefix(line, "$"))
		if err != nil {
			return fmt.Errorf("answered %q", line)
		}
		text := make([]byte, size)
		if _, err := io.ReadFull(rest, text); err != nil {
			return err
		}
		info = parseInfo(string(text))
		return nil
	})
	return info, err
}

// parseInfo reads the lines whose values are numbers.
func parseInfo(text string) map[string]float64 {
	info := make(map[string]float64)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			info[name] = v
		}
	}
	return info
}
