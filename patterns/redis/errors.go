package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// codes are the first words of Redis' error replies, as far as they mean one of our sentinels.
var codes = map[string]error{
	"LOADING":     multicastregistry.ErrUnavailable, // reads its data after a start
	"CLUSTERDOWN": multicastregistry.ErrUnavailable,
	"MASTERDOWN":  multicastregistry.ErrUnavailable,
	"TRYAGAIN":    multicastregistry.ErrUnavailable, // the slot is moving
	"MOVED":       multicastregistry.ErrUnavailable, // more often than a client follows
	"ASK":         multicastregistry.ErrUnavailable,
	"READONLY":    multicastregistry.ErrUnavailable, // a master that became a replica
	"BUSY":        multicastregistry.ErrUnavailable, // somebody's script does not end
	"UNKILLABLE":  multicastregistry.ErrUnavailable,
	"NOREPLICAS":  multicastregistry.ErrUnavailable, // min-replicas-to-write
	"MISCONF":     multicastregistry.ErrUnavailable, // it cannot save, and so takes no writes
	"OOM":         multicastregistry.ErrQuota,       // maxmemory
	"NOAUTH":      multicastregistry.ErrUnsupported,
	"WRONGPASS":   multicastregistry.ErrUnsupported,
	"NOPERM":      multicastregistry.ErrUnsupported,
	"DENIED":      multicastregistry.ErrUnsupported, // protected mode
}

// wrap turns an error of the driver into one of ours: `redis: put "dev-7": unavailable: …`. What names the identity, if any.
// The context is the caller's, without our own time limit. A nil error stays nil.
func (c *Conn) wrap(ctx context.Context, op, id string, err error) error {
	if err == nil {
		return nil
	}
	if id != "" {
		op = fmt.Sprintf("%s %q", op, id)
	}
	if ended := contextError(ctx); ended != nil && !isSentinel(err) && !isReply(err) {
		return fmt.Errorf("redis: %s: %w", op, ended)
	}
	return fmt.Errorf("redis: %s: %w", op, classify(err, c.timeout.String()))
}

// contextError returns how a context has ended. The network knows its deadline too, and may be faster than its timer.
func contextError(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// isReply tells whether an error is what Redis said, and not that it was not heard.
func isReply(err error) bool {
	_, ok := errors.AsType[*rueidis.RedisError](err)
	return ok && !rueidis.IsRedisNil(err)
}

// classify wraps an error in the sentinel that it means; the limit is how long an answer may take.
func classify(err error, limit string) error {
	if isSentinel(err) {
		return err
	}
	if reply, ok := errors.AsType[*rueidis.RedisError](err); ok {
		return classifyReply(reply)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: no answer within %s", multicastregistry.ErrUnavailable, limit)
	case errors.Is(err, rueidis.Nil), rueidis.IsParseErr(err), errors.Is(err, errReply):
		return err // an answer that is not understood
	}
	return fmt.Errorf("%w: %w", multicastregistry.ErrUnavailable, err) // what else the driver reports is the network
}

func classifyReply(reply *rueidis.RedisError) error {
	text := strings.TrimPrefix(reply.Error(), "-")
	code, _, _ := strings.Cut(text, " ")
	if strings.Contains(text, "user executing the script can't") { // Redis 7.0 gives no code, nor says what it is about
		code, text = "NOPERM", rights+" are needed: "+text
	}
	switch meaning := codes[code]; {
	case meaning == nil:
		return reply
	case code == "OOM":
		return fmt.Errorf("%w: Redis is at its maxmemory: %w", meaning, reply)
	case code == "NOAUTH":
		return fmt.Errorf("%w: Redis wants a password: %w", meaning, reply)
	case code == "WRONGPASS":
		return fmt.Errorf("%w: Redis refuses the username or password: %w", meaning, reply)
	case code == "NOPERM":
		return fmt.Errorf("%w: the Redis user lacks a right: %s", meaning, text)
	default:
		return fmt.Errorf("%w: %w", meaning, reply)
	}
}

// rights are the commands that the scripts run.
const rights = "TIME, HGET, HMGET, HSET, HINCRBY, ZADD, ZREM, ZSCORE, ZMSCORE, ZSCAN, ZCOUNT, ZRANGE, XADD, DEL, PEXPIREAT, " +
	"PERSIST, and for durability EXISTS, PEXPIRE, PTTL, HDEL, XRANGE, XDEL, XLEN, GET, SET, ZCARD, ZPOPMIN, PUBLISH"

// errReply says that a reply has not the form that the script's head promises.
var errReply = errors.New("unexpected reply")

// sentinels are the errors that need no translation.
var sentinels = []error{
	multicastregistry.ErrAlreadyExists, multicastregistry.ErrNotFound, multicastregistry.ErrQuota,
	multicastregistry.ErrUnavailable, multicastregistry.ErrUnsupported, multicastregistry.ErrInvalid,
}

func isSentinel(err error) bool {
	return slices.ContainsFunc(sentinels, func(s error) bool { return errors.Is(err, s) })
}
