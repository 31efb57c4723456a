package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// TestReplies has Redis reply with each error that means something to us.
func TestReplies(t *testing.T) {
	c := shared(t)
	for reply, want := range map[string]error{
		"LOADING Redis is loading the dataset in memory":      mr.ErrUnavailable,
		"CLUSTERDOWN The cluster is down":                     mr.ErrUnavailable,
		"MASTERDOWN Link with MASTER is down":                 mr.ErrUnavailable,
		"TRYAGAIN Multiple keys request during rehashing":     mr.ErrUnavailable,
		"READONLY You can't write against a read only":        mr.ErrUnavailable,
		"BUSY Redis is busy running a script":                 mr.ErrUnavailable,
		"UNKILLABLE Sorry the script already executed writes": mr.ErrUnavailable,
		"NOREPLICAS Not enough good replicas to write":        mr.ErrUnavailable,
		"MISCONF Redis is configured to save RDB snapshots":   mr.ErrUnavailable,
		"OOM command not allowed when used memory > 'max":     mr.ErrQuota,
		"NOAUTH Authentication required":                      mr.ErrUnsupported,
		"WRONGPASS invalid username-password pair":            mr.ErrUnsupported,
		"NOPERM this user has no permissions to run 'hset'":   mr.ErrUnsupported,
		"ERR The user executing the script can't run this":    mr.ErrUnsupported,
		"ERR The user executing the script can't access":      mr.ErrUnsupported,
		"WRONGTYPE Operation against a key":                   nil,
		"ERR something else":                                  nil,
	} {
		reply = strings.TrimSpace(reply)
		replied := do(t, c, "EVAL", "return redis.error_reply(ARGV[1])", "0", reply).Error()
		err := c.wrap(t.Context(), "put", "a\n", replied)
		_, text, _ := strings.Cut(reply, " ")
		if !strings.HasPrefix(err.Error(), `redis: put "a\n": `) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", reply, err)
		}
		wantSentinel(t, err, want)
		// What Redis has said counts, even if the context has ended meanwhile.
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		wantSentinel(t, c.wrap(ended, "put", "a", replied), want)
	}
}

// wantSentinel fails the test unless an error is of one of our sentinels, and of no other.
func wantSentinel(t *testing.T, err, want error) {
	t.Helper()
	for _, sentinel := range sentinels {
		if errors.Is(err, sentinel) != errors.Is(want, sentinel) {
			t.Errorf("%v: is %q: %v", err, sentinel, errors.Is(err, sentinel))
		}
	}
}

func TestWrap(t *testing.T) {
	c := &Conn{timeout: 5 * time.Second}
	noError(t, c.wrap(t.Context(), "put", "a", nil))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	past, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	for _, row := range []struct {
		ctx            context.Context //nolint:containedctx // a row of a table
		err            error
		want, sentinel error
		text           string
	}{
		{t.Context(), io.EOF, io.EOF, mr.ErrUnavailable, "redis: count: unavailable: EOF"},
		{t.Context(), rueidis.ErrClosing, rueidis.ErrClosing, mr.ErrUnavailable, "closing"},
		{t.Context(), context.DeadlineExceeded, nil, mr.ErrUnavailable, "redis: count: unavailable: no answer within 5s"},
		{t.Context(), mr.ErrNotFound, mr.ErrNotFound, mr.ErrNotFound, "redis: count: not found"},
		{t.Context(), fmt.Errorf("%w: nothing", errReply), errReply, nil, "unexpected reply: nothing"},
		{t.Context(), invalid("database", "no"), nil, mr.ErrInvalid, "database: no"},
		{cancelled, io.EOF, context.Canceled, nil, "redis: count: context canceled"},
		{cancelled, context.DeadlineExceeded, context.Canceled, nil, ""},
		{cancelled, mr.ErrAlreadyExists, mr.ErrAlreadyExists, mr.ErrAlreadyExists, ""},
		{past, io.EOF, context.DeadlineExceeded, nil, ""},
	} {
		err := c.wrap(row.ctx, "count", "", row.err)
		if row.want != nil && !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%v becomes %v, want %v with %q", row.err, err, row.want, row.text)
		}
		wantSentinel(t, err, row.sentinel)
	}
}
