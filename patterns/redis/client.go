package redis

import (
	"context"
	"slices"
	"sync"

	"github.com/redis/rueidis"
)

// client is the driver's client with calls that end when their context does. The driver's own may not: while somebody else
// dials for them, they wait for that.
type client struct {
	rueidis.Client

	calls  sync.WaitGroup // those that the driver still holds
	mu     sync.RWMutex   // lets calls begin before Close only
	closed bool
}

func newClient(option rueidis.ClientOption) (rueidis.Client, error) {
	inner, err := rueidis.NewClient(option)
	if err != nil {
		if inner != nil {
			inner.Close()
		}
		return nil, err
	}
	return &client{Client: inner}, nil
}

// Do implements rueidis.Client.
func (c *client) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	cmd = keep(cmd)
	result, err := prompt(ctx, c, func() rueidis.RedisResult { return c.Client.Do(ctx, cmd) })
	if err != nil {
		return rueidis.NewErrorResult(err)
	}
	return result
}

// DoMulti implements rueidis.Client. The driver gets a slice of its own: it may read that for longer than the caller waits.
func (c *client) DoMulti(ctx context.Context, cmds ...rueidis.Completed) []rueidis.RedisResult {
	cmds = slices.Clone(cmds)
	for i := range cmds {
		cmds[i] = keep(cmds[i])
	}
	results, err := prompt(ctx, c, func() []rueidis.RedisResult { return c.Client.DoMulti(ctx, cmds...) })
	if err != nil {
		results = make([]rueidis.RedisResult, len(cmds))
		for i := range results {
			results[i] = rueidis.NewErrorResult(err)
		}
	}
	return results
}

// keep has the driver not use a command's memory again, where it may try the command twice: the goroutine that writes to a
// broken connection can still be reading it when the second try has succeeded.
func keep(cmd rueidis.Completed) rueidis.Completed {
	if cmd.IsRetryable() {
		return cmd.Pin()
	}
	return cmd
}

// background runs a task that calls the driver, for which Close waits. It returns false when the client is closed.
func (c *client) background(task func()) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.closed {
		c.calls.Go(task)
	}
	return !c.closed
}

// Close implements rueidis.Client. It waits for the calls that the driver still holds. Closing again does nothing.
func (c *client) Close() {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	if !again {
		c.Client.Close()
	}
	c.calls.Wait()
}

// prompt returns what a call returns, or the context's error as soon as that ends.
func prompt[T any](ctx context.Context, c *client, call func() T) (result T, err error) {
	if err := ctx.Err(); err != nil {
		return result, err
	}
	c.mu.RLock()
	if c.closed {
		c.mu.RUnlock()
		return result, rueidis.ErrClosing
	}
	done := make(chan T, 1)
	c.calls.Go(func() { done <- call() })
	c.mu.RUnlock()
	select {
	case result = <-done:
		return result, nil
	case <-ctx.Done():
		return result, ctx.Err()
	}
}
