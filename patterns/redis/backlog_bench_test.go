package redis

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// busy returns for how long Redis was busy with a kind of command.
func busy(b *testing.B, c *Conn, kind string) time.Duration {
	b.Helper()
	total := time.Duration(0)
	for line := range strings.Lines(text(b, c, "INFO", "commandstats")) {
		if strings.HasPrefix(line, "cmdstat_"+kind) {
			_, after, _ := strings.Cut(line, "usec=")
			value, _, _ := strings.Cut(after, ",")
			us, err := strconv.Atoi(value)
			noError(b, err)
			total += time.Duration(us) * time.Microsecond
		}
	}
	return total
}

// BenchmarkDepth counts what is stored over a day, in each slice of it. It reports how long Redis is busy.
func BenchmarkDepth(b *testing.B) {
	c := connect(b, Config{Host: testenv.NewRedis(b).Addr})
	d := durability(b, c, DurabilityConfig{Namespace: "bench"})
	storeOver(b, d, mr.Topic("bench", "a"), 10_000, d.cfg.MaxAge-time.Minute, 0)
	before := busy(b, c, "hgetall")
	for b.Loop() {
		if n, err := d.Backlog(b.Context()); n != 10_000 || err != nil {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64((busy(b, c, "hgetall")-before).Microseconds())/float64(b.N), "redis-us/op")
}

// BenchmarkPurge purges messages that came within a minute or over a day. It reports how long Redis is busy. Peer: DEL of a stream
// and a hash of as many messages.
func BenchmarkPurge(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		for _, over := range []time.Duration{time.Minute, DefaultMaxAge - time.Minute} {
			b.Run(fmt.Sprintf("messages=%d/over=%v", n, over), func(b *testing.B) {
				c := connect(b, Config{Host: testenv.NewRedis(b).Addr, Timeout: time.Minute})
				d := durability(b, c, DurabilityConfig{Namespace: "bench"})
				topic := mr.Topic("bench", "a")
				var took, raw time.Duration
				for b.Loop() {
					b.StopTimer()
					storeOver(b, d, topic, n, over, 0)
					before := busy(b, c, "evalsha")
					b.StartTimer()
					if purged, err := d.Purge(b.Context(), topic); purged != n || err != nil {
						b.Fatal(purged, err)
					}
					b.StopTimer()
					took += busy(b, c, "evalsha") - before
					storeOver(b, d, topic, n, over, 0)
					before = busy(b, c, "del")
					noError(b, do(b, c, "DEL", d.keys[0]+topic, d.keys[1]+topic, d.keys[3]).Error())
					raw += busy(b, c, "del") - before
					b.StartTimer()
				}
				b.ReportMetric(float64(took)/float64(raw), "x-raw")
				b.ReportMetric(float64(took.Microseconds())/float64(b.N), "redis-us/op")
			})
		}
	}
}
