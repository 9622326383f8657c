package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/migrations"
)

// healthz says that the process is alive and answers. It looks at nothing else: restarting the process mends no
// database.
func healthz(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
}

// readiness is the body of /readyz, which asks for no login: it says what stands still and where, and nothing of events
// and people. Why, and by whom, is in the log, in api status and, for staff, in deliveries.
type readiness struct {
	Ready    bool              `json:"ready"`
	Problems []string          `json:"problems"` // empty when ready
	Parts    map[string]string `json:"parts"`    // what each part is doing
}

// readyTimeout bounds the look at the database.
const readyTimeout = 2 * time.Second

// readyz says whether requests should be sent here, and if not, what is wrong.
func (a *app) readyz(w http.ResponseWriter, r *http.Request) {
	state := a.readiness(r.Context())
	code := http.StatusOK
	if !state.Ready {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, state)
}

func (a *app) readiness(ctx context.Context) readiness {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	state := readiness{Problems: []string{}, Parts: map[string]string{}}
	if a.draining.Load() {
		state.Problems = append(state.Problems, "the server is shutting down")
	}
	if pending, err := migrations.Pending(ctx, a.pool); err != nil {
		// The error may tell of hosts and users; the log has it.
		a.log.Warn("the database does not answer", "error", err)
		state.Problems = append(state.Problems, "the database does not answer")
	} else if len(pending) > 0 {
		state.Problems = append(state.Problems, fmt.Sprintf("the database lacks migrations: %v", pending))
	}
	for _, w := range a.workers {
		for _, part := range w.state() {
			state.Parts[part.name] = part.doing
			if part.problem && !w.aside {
				state.Problems = append(state.Problems, part.name+": "+part.doing)
			}
		}
	}
	if a.replicas != nil {
		// None is a problem: the primary answers in their place.
		for i, replica := range a.replicas.Status() {
			doing := fmt.Sprintf("used, at most %v behind", replica.Lag.Round(time.Millisecond))
			if !replica.Used {
				doing = "not used: " + replica.Reason
			}
			state.Parts[fmt.Sprint("replica ", i+1)] = doing
		}
	}
	state.Ready = len(state.Problems) == 0
	return state
}

// part says what something that runs beside the requests does, and whether that is a problem.
type part struct {
	name, doing string
	problem     bool
}

// state says what the worker does: each of its followers of the log, if it has any.
func (w *worker) state() []part {
	running, followers := w.followers()
	switch {
	case !running:
		return []part{{w.name, "not running", true}}
	case len(followers) == 0:
		return []part{{w.name, "running", false}}
	}
	parts := make([]part, len(followers))
	for i, status := range followers {
		parts[i].name = w.name
		if status.Shards > 1 {
			parts[i].name += fmt.Sprintf(", shard %d of %d", status.Shard, status.Shards)
		}
		parts[i].doing, parts[i].problem = doing(status)
	}
	return parts
}

// doing puts a follower's status into words. An error that is being retried is no problem: the database is looked at
// apart, and restarting this process mends nothing else.
func doing(status outbox.Status) (what string, problem bool) {
	switch {
	case status.Refused != "":
		return "refuses to work: " + status.Refused, true
	case !status.HaltedAt.IsZero():
		return fmt.Sprintf("halted at position %d", status.Position), true
	case !status.PausedAt.IsZero():
		return fmt.Sprintf("paused at position %d", status.Position), false
	case !status.Running:
		return "not running", true
	case status.LastError != "":
		return fmt.Sprintf("retrying at position %d", status.Position), false
	case status.Owner:
		return fmt.Sprintf("working, at position %d", status.Position), false
	default:
		return "standing by for the process that has the lease", false
	}
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	// A client that is gone needs no answer.
	_ = json.NewEncoder(w).Encode(body)
}
