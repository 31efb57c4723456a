package redis

import (
	"context"
	"crypto/sha1" //nolint:gosec // it is how Redis names scripts
	"encoding/hex"

	"github.com/redis/rueidis"
)

// script is a Lua script of which many runs share a pipeline, in order.
type script struct {
	source, sha string
	readonly    bool
}

func newScript(source string) script {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // it is how Redis names scripts
	return script{source: source, sha: hex.EncodeToString(sum[:])}
}

func newReadingScript(source string) script {
	s := newScript(source)
	s.readonly = true
	return s
}

// runAll runs a script once with each list of arguments, in order, and returns a result for each. The first run of several
// brings the script along.
func (c *Conn) runAll(ctx context.Context, s script, keys []string, calls [][]string) []rueidis.RedisResult {
	client := c.write
	if s.readonly {
		client = c.read
	}
	commands := make(rueidis.Commands, len(calls))
	for i, args := range calls {
		commands[i] = s.command(client, keys, args, i == 0 && len(calls) > 1)
	}
	results := client.DoMulti(ctx, commands...)
	var again rueidis.Commands
	var places []int
	for i, result := range results {
		if reply, ok := rueidis.IsRedisErr(result.Error()); ok && reply.IsNoScript() {
			again, places = append(again, s.command(client, keys, calls[i], true)), append(places, i)
		}
	}
	if len(again) > 0 {
		for i, result := range client.DoMulti(ctx, again...) {
			results[places[i]] = result
		}
	}
	return results
}

func (s script) command(client rueidis.Client, keys, args []string, whole bool) rueidis.Completed {
	b, n := client.B(), int64(len(keys))
	switch {
	case s.readonly && whole:
		return b.EvalRo().Script(s.source).Numkeys(n).Key(keys...).Arg(args...).Build()
	case s.readonly:
		return b.EvalshaRo().Sha1(s.sha).Numkeys(n).Key(keys...).Arg(args...).Build()
	case whole:
		return b.Eval().Script(s.source).Numkeys(n).Key(keys...).Arg(args...).Build()
	}
	return b.Evalsha().Sha1(s.sha).Numkeys(n).Key(keys...).Arg(args...).Build()
}

// sized is a list of arguments and how much of them there is.
type sized struct {
	args  []string
	first int // place of its first item
	items int
	bytes int
}

// split divides items among calls of a script, each with the same first arguments, at most so many items, and scriptBytes. Add
// appends the arguments of an item.
func split(items, itemsAtOnce int, first []string, add func(args []string, item int) []string) []sized {
	var calls []sized
	for i := range items {
		n := len(calls)
		if n == 0 || calls[n-1].items == itemsAtOnce || calls[n-1].bytes > scriptBytes {
			call := sized{args: append(make([]string, 0, len(first)+4*min(itemsAtOnce, items-i)), first...), first: i}
			calls = append(calls, call)
			n++
		}
		call := &calls[n-1]
		before := len(call.args)
		call.args = add(call.args, i)
		for _, arg := range call.args[before:] {
			call.bytes += len(arg)
		}
		call.items++
	}
	return calls
}

const (
	// scriptsAtOnce bounds a pipeline of scripts, besides bytesAtOnce.
	scriptsAtOnce = 16
	// scriptBytes is how much one call of a script takes, give or take the item that goes beyond.
	scriptBytes = 512 << 10
)

// runSplit runs the calls of split, in pipelines, in order, and hands each result to take, with the place of its first item and
// their number.
func (c *Conn) runSplit(
	ctx context.Context, s script, keys []string, calls []sized, take func(first, items int, result rueidis.RedisResult),
) {
	for len(calls) > 0 {
		n, size := 0, 0
		var args [][]string
		for n < len(calls) && n < scriptsAtOnce && (n == 0 || size+calls[n].bytes <= bytesAtOnce) {
			args = append(args, calls[n].args)
			size += calls[n].bytes
			n++
		}
		for i, result := range c.runAll(ctx, s, keys, args) {
			take(calls[i].first, calls[i].items, result)
		}
		calls = calls[n:]
	}
}
