package multicastregistry_test

import (
	"context"
	"testing"
	"testing/synctest"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// TestStoringFails has the durability slot fail attempt by attempt: what may be stored is not reported as FAILED.
func TestStoringFails(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		fails  []func(string, int) error
		status mr.Status
		reason mr.Reason
	}{
		"it is away":                      {[]func(string, int) error{down, down, down}, mr.Failed, mr.BackendError},
		"it is away once":                 {[]func(string, int) error{down}, mr.Pending, mr.NoSubscriber},
		"the answer is lost":              {[]func(string, int) error{unknown, unknown, unknown}, mr.Timeout, mr.BackendError},
		"the answer is lost once":         {[]func(string, int) error{unknown}, mr.Pending, mr.NoSubscriber},
		"it is lost, and then it is away": {[]func(string, int) error{unknown, down, down}, mr.Timeout, mr.BackendError},
		"it is lost, and then it is full": {[]func(string, int) error{unknown, full}, mr.Timeout, mr.QueueFull},
		"it is full":                      {[]func(string, int) error{full}, mr.Failed, mr.QueueFull},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, k := kept(t, 1)
				attempts := 0
				k.enqueue = func(ctx context.Context, messages []mr.Message) []error {
					if attempts++; attempts <= len(row.fails) {
						return []error{row.fails[attempts-1]("", attempts)}
					}
					return k.Durability.Enqueue(ctx, messages)
				}
				r := multicast(t, c, mr.Request{})
				checkResult(t, r, ids(1))
				if target := r.Targets[0]; target.Status != row.status || target.Reason != row.reason {
					t.Errorf("%+v", target)
				}
			})
		})
	}
}

// TestUnregistersWhileStored has a target go while its message is being stored: the next one of that name does not get it.
func TestUnregistersWhileStored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, k := kept(t, 2)
		k.enqueue = func(ctx context.Context, messages []mr.Message) []error {
			_, err := c.Unregister(ctx, "id-00000", 0)
			noError(t, err)
			return k.Durability.Enqueue(ctx, messages)
		}
		r := multicast(t, c, mr.Request{})
		if target := r.Targets[0]; target.Status != mr.Failed || target.Reason != mr.Gone || r.Pending != 1 {
			t.Errorf("%+v", r)
		}
		if r := get(t, c, r.ID).Result; r.Pending != 1 || r.Targets[0].Reason != mr.Gone {
			t.Errorf("%+v", r)
		}
		register(t, c, 1, nil)
		attach(t, c, func(m mr.Message) bool { t.Errorf("received %+v", m); return true }, "id-00000")
		synctest.Wait()
	})
}
