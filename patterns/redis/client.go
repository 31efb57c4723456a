package redis

import (
	"context"
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
	result, err := prompt(ctx, c, func() rueidis.RedisResult { return c.Client.Do(ctx, cmd) })
	if err != nil {
		return rueidis.NewErrorResult(err)
	}
	return result
}

// DoMulti implements rueidis.Client.
func (c *client) DoMulti(ctx context.Context, cmds ...rueidis.Completed) []rueidis.RedisResult {
	results, err := prompt(ctx, c, func() []rueidis.RedisResult { return c.Client.DoMulti(ctx, cmds...) })
	if err != nil {
		results = make([]rueidis.RedisResult, len(cmds))
		for i := range results {
			results[i] = rueidis.NewErrorResult(err)
		}
	}
	return results
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
