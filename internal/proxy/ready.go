package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// readyTimeout bounds what /readyz waits for all backends together, and slotTimeout what each has to answer: a little less, so
	// that its own error is heard.
	readyTimeout = 2 * time.Second
	slotTimeout  = readyTimeout - 100*time.Millisecond
)

// What /readyz says of a server, of a namespace and of a slot.
const (
	stateReady       = "ready"
	stateLeaving     = "shutting down"
	stateOK          = "ok"
	stateUnavailable = "unavailable"
	stateUnknown     = "unknown" // the slot cannot be asked
)

// readiness is what /readyz answers.
type readiness struct {
	Status     string                    `json:"status"`               // stateReady, stateUnavailable or stateLeaving
	Auth       string                    `json:"auth,omitempty"`       // why credentials cannot be checked
	Namespaces map[string]namespaceState `json:"namespaces,omitempty"` // by name
}

// namespaceState is stateOK while every slot is, or cannot be asked.
type namespaceState struct {
	Status string               `json:"status"`
	Slots  map[string]slotState `json:"slots"` // by name
}

// slotState is what became of asking one slot.
type slotState struct {
	Type   string `json:"type"`
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
}

func (g *gateway) readyz(w http.ResponseWriter, r *http.Request, _ map[string]string) {
	code, answer := http.StatusOK, readiness{Status: stateReady, Namespaces: g.server.ask(r.Context())}
	for _, namespace := range answer.Namespaces {
		if namespace.Status != stateOK {
			code, answer.Status = http.StatusServiceUnavailable, stateUnavailable
		}
	}
	if a := g.server.serving.Load().authenticator; a != nil {
		if err := a.Ready(); err != nil {
			code, answer.Status, answer.Auth = http.StatusServiceUnavailable, stateUnavailable, clean(err.Error())
		}
		if g.mux != nil { // not the operators' side: whoever asks may be anybody, and the log tells
			answer.Namespaces, answer.Auth = nil, ""
		}
	}
	select {
	case <-g.server.drain.leaving:
		code, answer.Status = http.StatusServiceUnavailable, stateLeaving
	default:
	}
	writeJSON(w, code, answer)
}

// ask asks every slot of every namespace whether its backend answers, all at once. It waits for none of them longer than
// readyTimeout: one that does not heed its context is left to itself, and counts as silent.
func (s *Server) ask(ctx context.Context) map[string]namespaceState {
	type result struct {
		namespace, slot string
		state           slotState
	}
	ctx, cancel := context.WithTimeout(ctx, slotTimeout)
	defer cancel()
	now := s.serving.Load()
	states := make(map[string]namespaceState, len(now.names))
	results, asked := make(chan result), 0
	given := make(chan struct{})
	defer close(given)
	for name, n := range now.namespaces {
		types := map[string]string{"registry": n.Registry, "messaging": n.Messaging, "durability": n.Durability}
		slots := make(map[string]slotState, len(types))
		for _, slot := range n.Coordinator.Slots() {
			state := slotState{Type: types[slot.Name], Status: stateUnknown}
			if slot.Pinger != nil {
				state.Status, state.Error = stateUnavailable, "no answer within "+readyTimeout.String()
				asked++
				go func() {
					out := result{name, slot.Name, s.pingSlot(ctx, name, slot, state)}
					select {
					case results <- out:
					case <-given:
					}
				}()
			}
			slots[slot.Name] = state
		}
		states[name] = namespaceState{Status: stateOK, Slots: slots}
	}
	enough := time.NewTimer(readyTimeout)
	defer enough.Stop()
	for waiting := true; waiting && asked > 0; asked-- {
		select {
		case r := <-results:
			states[r.namespace].Slots[r.slot] = r.state
		case <-enough.C:
			waiting = false
		}
	}
	for name, namespace := range states {
		for _, slot := range namespace.Slots {
			if slot.Status == stateUnavailable {
				namespace.Status = stateUnavailable
			}
		}
		states[name] = namespace
	}
	return states
}

// pingSlot asks one slot. Silent is what it is as long as it says nothing.
func (s *Server) pingSlot(
	ctx context.Context, namespace string, slot multicastregistry.FilledSlot, silent slotState,
) slotState {
	faulty, err := ping(ctx, slot.Pinger)
	if err == nil {
		return slotState{Type: silent.Type, Status: stateOK}
	}
	if !errors.Is(context.Cause(ctx), context.Canceled) { // who asked is still there
		s.sparing.write(ctx, slog.LevelWarn, kindName{"not ready", ""}, "not ready",
			slog.String("namespace", namespace), slog.String("slot", slot.Name), slog.String("type", silent.Type), slog.Any("error", err))
	}
	state := slotState{Type: silent.Type, Status: stateUnavailable, Error: clean(err.Error())}
	switch {
	case faulty:
		state.Error = "a fault of ours; the log tells"
	case ctx.Err() != nil:
		state.Error = silent.Error + ": " + state.Error
	}
	return state
}

// ping asks one backend, and makes an error of a panic, which is faulty.
func ping(ctx context.Context, p multicastregistry.Pinger) (faulty bool, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			faulty, err = true, recovered(panicked, nil)
		}
	}()
	return false, p.Ping(ctx)
}
