package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// write fills in what the pages say in figures.
func write(docs string, found map[string]*Measured) error {
	costs := costsOf(found)
	for page, parts := range map[string]map[string]string{
		"performance.md": {
			"head": head(found), "identities": identityTable(found["identities"]), "targets": targetTable(found["targets"]),
			"proxies": proxyTable(found["proxies"]), "subscribers": subscriberTable(found["subscribers"]),
		},
		"capacity.md": {
			"costs": costTable(costs), "ttl-300": provisionTable(costs, 300), "ttl-30": provisionTable(costs, 30),
		},
	} {
		name := filepath.Join(docs, page)
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		filled := string(text)
		for part, content := range parts {
			if filled, err = fillIn(filled, part, content); err != nil {
				return fmt.Errorf("%s: %w", page, err)
			}
		}
		if err := os.WriteFile(name, []byte(filled), 0o644); err != nil { //nolint:gosec // documentation, for everybody
			return err
		}
	}
	return nil
}

// fillIn replaces what stands between the markers of a part.
func fillIn(page, part, content string) (string, error) {
	begin, end := "<!-- make plots: "+part+" -->\n", "<!-- end of "+part+" -->"
	before, rest, found := strings.Cut(page, begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return "", fmt.Errorf("there is no %q with %q after it", strings.TrimSpace(begin), end)
	}
	return before + begin + "\n" + content + "\n" + end + after, nil
}

// head tells where and when it was measured.
func head(found map[string]*Measured) string {
	var lines []string
	of := make(map[string][]string) // experiments by line
	for _, name := range names() {
		m := found[name]
		line := fmt.Sprintf("Measured on %s at commit %s, on a virtual machine with %d cores (%s).",
			m.Date, m.Commit, m.Cores, m.Machine)
		if m.Quick {
			line += " **A quick run: the figures are worth nothing.**"
		}
		if of[line] == nil {
			lines = append(lines, line)
		}
		of[line] = append(of[line], name)
	}
	if len(lines) == 1 {
		return lines[0] + "\n"
	}
	var text strings.Builder
	for _, line := range lines {
		fmt.Fprintf(&text, "- %s: %s\n", strings.Join(of[line], ", "), line)
	}
	return text.String()
}

// table writes rows, of which the first one is the head.
func table(rows [][]string) string {
	var text strings.Builder
	for i, row := range rows {
		fmt.Fprintf(&text, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&text, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
	return text.String()
}

func identityTable(m *Measured) string {
	rows := [][]string{{
		"identities", "enumerate 100: CPU", "median", "multicast to 100: CPU", "median", "register: CPU", "median",
		"memory of the server", "for each identity",
	}}
	idle := m.last("memory").Memory[kindProxy]
	for _, p := range m.series("enumerate") {
		row := []string{whole(p.X)}
		for _, series := range []string{"enumerate", "multicast", "register"} {
			point := m.at(series, p.X)
			row = append(row, span(cpu(point)), span(p50(point)))
		}
		used := p.Memory[kindProxy]
		rows = append(rows, append(row, size(used), size((used-idle)/float64(p.X))))
	}
	return table(rows)
}

func targetTable(m *Measured) string {
	rows := [][]string{{
		"targets", "in memory: CPU for each target", "median", "over NATS: CPU of the proxy for each target", "and of NATS", "median",
	}}
	for _, p := range m.series("memory") {
		over := m.at("nats", p.X)
		rows = append(rows, []string{
			whole(p.X), span(each(cpu)(p)), span(p50(p)),
			span(each(cpuOf(kindProxy))(over)), span(each(cpuOf(kindNATS))(over)), span(p50(over)),
		})
	}
	return table(rows)
}

func proxyTable(m *Measured) string {
	rows := [][]string{{"proxies", "CPU for each operation", "of the proxies", "of Redis", "of NATS", "operations a second"}}
	for _, p := range m.series("mix") {
		rows = append(rows, []string{
			whole(p.X), span(cpu(p)), span(p.CPU[kindProxy]), span(p.CPU[kindRedis]), span(p.CPU[kindNATS]), figure(p.PerSecond),
		})
	}
	return table(rows)
}

func subscriberTable(m *Measured) string {
	rows := [][]string{{"streams", "CPU for each message", "median of a multicast", "memory of the server", "for each stream"}}
	for _, p := range m.series("streams") {
		stream := "-"
		if p.X >= 1000 {
			stream = size(p.Other["bytes_per_stream"])
		}
		rows = append(rows, []string{whole(p.X), span(each(cpu)(p)), span(p50(p)), size(p.Memory[kindProxy]), stream})
	}
	return table(rows)
}

func costTable(c costs) string {
	return table([][]string{
		{"cost", "", "of one"},
		{"R", size(c.redisIdentity), "identity of five fields: memory of Redis"},
		{"L", size(c.redisEntry), "entry of the change log: memory of Redis"},
		{"I", size(c.proxyIdentity), "identity: memory of each proxy, resident"},
		{"Q", size(c.proxyIdle), "proxy: memory when it is idle"},
		{"S", size(c.stream), "stream of one identity, on a connection with others: memory of its proxy"},
		{"C", size(c.connection), "the same on a connection of its own"},
		{"N", size(c.natsIdentity), "identity that is attached: memory of NATS"},
		{"hp", span(c.heartbeat.proxy), "heartbeat: CPU of the proxy that is called"},
		{"hf", span(c.heartbeat.follower), "heartbeat: CPU of each other proxy"},
		{"hr", span(c.heartbeat.redis), "heartbeat: CPU of Redis, " + figure(c.redisCalls) + " commands with those inside of scripts"},
		{"hx", span(c.heartbeat.feeding), "heartbeat: CPU of Redis, more for each other proxy"},
		{"hb", size(c.followerBytes), "heartbeat: what Redis sends to each other proxy"},
		{"rp", span(c.register.proxy), "registration: CPU of the proxy that is called"},
		{"rf", span(c.register.follower), "registration: CPU of each other proxy"},
		{"rr", span(c.register.redis), "registration: CPU of Redis"},
		{"e", span(c.enumerate), "enumerate of 100 identities with metadata: CPU of the proxy"},
		{"tp", span(c.targetProxy), "target of a multicast to 100, acknowledged: CPU of the proxy"},
		{"tn", span(c.targetNATS), "the same: CPU of NATS"},
	})
}

func provisionTable(c costs, ttl float64) string {
	all := make([]provision, 0, 3)
	for _, n := range []float64{10_000, 1e6, 100e6} {
		all = append(all, c.provide(n, ttl))
	}
	row := func(name string, of func(p provision) string) []string {
		cells := []string{name}
		for _, p := range all {
			cells = append(cells, of(p))
		}
		return cells
	}
	count := func(p provision) float64 { return float64(p.namespaces) }
	return table([][]string{
		row("identities", func(p provision) string { return figure(p.identities) }),
		row("heartbeats a second", func(p provision) string { return figure(p.beats) }),
		row("namespaces", func(p provision) string { return whole(p.namespaces) }),
		row("*of each namespace:* Redis, memory", func(p provision) string { return size(p.redisMemory) }),
		row("Redis, cores busy with heartbeats", func(p provision) string { return figure(p.redisCores) }),
		row("`shards`", func(p provision) string { return whole(p.shards) }),
		row("proxies", func(p provision) string { return whole(p.proxies) }),
		row("a proxy: memory", func(p provision) string { return size(p.proxyMemory) }),
		row("a proxy: cores busy with heartbeats", func(p provision) string { return figure(p.proxyCores) }),
		row("a proxy: news from Redis", func(p provision) string { return size(p.news) + "/s" }),
		row("a NATS server: memory for who is attached", func(p provision) string { return size(p.natsMemory) }),
		row("*of all:* Redis, memory", func(p provision) string { return size(count(p) * p.redisMemory) }),
		row("Redis nodes with a shard each", func(p provision) string { return whole(p.namespaces * p.shards) }),
		row("proxies", func(p provision) string { return whole(p.namespaces * p.proxies) }),
		row("CPU of a multicast to 1 %, proxy", func(p provision) string { return span(p.identities / 100 * c.targetProxy) }),
		row("the same, NATS", func(p provision) string { return span(p.identities / 100 * c.targetNATS) }),
	})
}

// figure writes a number with three digits, and with commas.
func figure(v float64) string {
	switch {
	case v == 0 || math.IsNaN(v) || math.IsInf(v, 0):
		return strconv.FormatFloat(v, 'f', -1, 64)
	case v > 0 && v < 0.001:
		return "< 0.001"
	case math.Abs(v) < 100:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	scale := math.Pow10(int(math.Floor(math.Log10(math.Abs(v)))) - 2)
	return whole(int(math.Round(v/scale) * scale))
}

// whole writes a number with commas.
func whole(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// span writes microseconds in a unit that suits them.
func span(us float64) string {
	switch {
	case math.Abs(us) >= 999_500:
		return figure(us/1e6) + " s"
	case math.Abs(us) >= 999.5:
		return figure(us/1e3) + " ms"
	}
	return figure(us) + " µs"
}

// size writes bytes in a unit that suits them.
func size(v float64) string {
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if math.Abs(v) < 999.5 {
			return figure(v) + " " + unit
		}
		v /= 1000
	}
	return figure(v) + " TB"
}
