package linearizability

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// fault is something that goes wrong for a while.
type fault struct {
	name string
	run  func(t testing.TB, random *rand.Rand)
}

// faults returns one of each kind. When one has run, all is well again.
func (s *setUp) faults() []fault {
	all := []fault{{"Redis is paused", s.pause}, {"Redis is killed and started again", s.restart}}
	for i, way := range s.ways {
		all = append(all,
			fault{fmt.Sprintf("way %d is cut", i), func(t testing.TB, random *rand.Rand) {
				t.Helper()
				way.Cut()
				wait(t.Context(), between(random, 200, 700))
				way.Heal()
			}},
			fault{fmt.Sprintf("way %d is reset", i), func(t testing.TB, random *rand.Rand) {
				t.Helper()
				for range 5 {
					way.Reset()
					wait(t.Context(), between(random, 20, 150))
				}
			}},
			fault{fmt.Sprintf("way %d is slow", i), func(t testing.TB, random *rand.Rand) {
				t.Helper()
				way.Delay(between(random, 2, 60))
				wait(t.Context(), between(random, 500, 1000))
				way.Heal()
			}},
			fault{fmt.Sprintf("way %d is stalled, and cut when it has recovered", i), func(t testing.TB, random *rand.Rand) {
				t.Helper()
				way.Stall()
				wait(t.Context(), between(random, 100, 1200))
				way.Heal() // what has waited comes through, and its answers may not
				wait(t.Context(), between(random, 0, 2))
				way.Reset()
			}})
	}
	return all
}

// pause has Redis stand still, with whatever it is sent meanwhile.
func (s *setUp) pause(t testing.TB, random *rand.Rand) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.redis.Addr)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = fmt.Fprintf(conn, "DEBUG SLEEP %.3f\r\n", between(random, 300, 1200).Seconds())
	must(t, err)
	reply := make([]byte, len("+OK\r\n"))
	if _, err = io.ReadFull(conn, reply); err != nil || reply[0] != '+' {
		t.Fatalf("redis says %q, %v", reply, err)
	}
}

func (s *setUp) restart(t testing.TB, random *rand.Rand) {
	t.Helper()
	s.redis.Kill()
	wait(t.Context(), between(random, 0, 500))
	s.redis.Start()
}

// between returns a time between two numbers of milliseconds.
func between(random *rand.Rand, least, most int) time.Duration {
	return time.Duration(least)*time.Millisecond + upTo(random, time.Duration(most-least)*time.Millisecond)
}

// upTo returns a time below another.
func upTo(random *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(most)))
}

// rounds runs all faults in random order, again and again until the time is up, with calm before and after each. Each round
// begins with a call of next.
func (s *setUp) rounds(t testing.TB, random *rand.Rand, until time.Time, next func(round int)) (rounds int) {
	t.Helper()
	for all := s.faults(); rounds < len(all) || time.Now().Before(until); rounds++ {
		if rounds%len(all) == 0 {
			random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		}
		next(rounds)
		wait(t.Context(), between(random, 100, 400))
		f := &all[rounds%len(all)]
		t.Logf("round %d: %s", rounds, f.name)
		f.run(t, random)
		wait(t.Context(), between(random, 300, 600))
	}
	return rounds
}
