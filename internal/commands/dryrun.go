package commands

import (
	"context"
	"errors"
	"fmt"

	"github.com/headrace/headrace/internal/eventstore"
)

// DryRun is what a command would do, judged on one state of the log. Nothing of it was stored.
type DryRun struct {
	Stream string
	AsOf   int64 // the newest position of the log that it was judged on
	Judged int64 // the version of Stream that it was judged on
	// Events are what would be recorded, at the positions, versions and time that they would have if nothing came before
	// them. None when the command was refused, or when what it asks for is so already.
	Events   []eventstore.Event
	Claim    []string // unique keys that the stream would take
	Release  []string // unique keys that it would give back
	Messages []eventstore.Message
	// Duplicate is the receipt that the command would get because its id was carried out before; nil when it was not.
	Duplicate *eventstore.Receipt
}

// Version is that of the stream after the command.
func (d DryRun) Version() int64 { return d.Judged + int64(len(d.Events)) }

// DryRun judges the command as Handle would carry it out at this moment, by the same functions and on the same state, and
// stores nothing: it reads in a transaction that cannot write, never comes near the appender, takes no turn on the stream
// and leaves the states kept in memory as they are. What comes meanwhile may change the answer.
//
// The errors are those of Handle, but for those of appending. With a refusal the result still says what it was judged on.
func (h *Handler[C, E, S]) DryRun(ctx context.Context, stream string, cmd C, call Call) (DryRun, error) {
	return h.dryRun(ctx, task[C]{stream: stream, cmd: cmd, call: call}, stream)
}

// DryCreate is DryRun of what Create would do. The stream's name is not taken by it.
func (h *Handler[C, E, S]) DryCreate(ctx context.Context, stream string, cmd C, call Call) (DryRun, error) {
	return h.dryRun(ctx, task[C]{stream: stream, cmd: cmd, call: call, create: true}, "")
}

// dryRun judges in a snapshot. The command's id covers the named part of the stream.
func (h *Handler[C, E, S]) dryRun(ctx context.Context, t task[C], named string) (DryRun, error) {
	out := DryRun{Stream: t.stream}
	epoch, _ := h.store.Epoch()
	at, kept := h.cache.peek(t.stream) // before the snapshot begins, which so includes it
	if !kept || at.epoch != epoch || t.create {
		at = snapshot[S]{state: h.decider.Initial(t.stream)}
	}
	err := h.store.Snapshot(ctx, func(log *eventstore.Snapshot) (err error) {
		out.AsOf = log.Head().Position
		if !h.owns(t.stream) {
			return h.refuseForeign(t.stream, t.cmd, t.call)
		}
		if t.id, err = commandID(t.cmd, named, t.call); err != nil {
			return err
		}
		receipt, found, err := log.FindReceipt(ctx, t.id)
		if err != nil {
			return err
		}
		if found {
			out.Stream, out.Duplicate = receipt.Stream, &receipt
			out.Judged, err = log.StreamVersion(ctx, receipt.Stream)
			return err
		}
		return h.judgeDry(ctx, log, t, at, &out)
	})
	return out, err
}

// judgeDry does what try and the log do with a command whose id is new.
func (h *Handler[C, E, S]) judgeDry(ctx context.Context, log *eventstore.Snapshot, t task[C], at snapshot[S], out *DryRun) error {
	var err error
	if !t.create {
		if at, err = h.evolve(at, t.stream, log.Stream(ctx, t.stream, at.version)); err != nil {
			return err
		}
	}
	out.Judged = at.version
	events, refusal := h.judge(at, t)
	if refusal != nil || (len(events) == 0 && t.id.ID == "") {
		return refusal
	}
	request, claims := h.request(t, at, events)
	draft, err := h.store.Draft(request)
	if err != nil {
		return fmt.Errorf("drafting for stream %s: %w", t.stream, err)
	}
	if t.create {
		actual, err := log.StreamVersion(ctx, t.stream)
		if err != nil {
			return err
		}
		if out.Judged = actual; actual != 0 {
			return &eventstore.ConflictError{Stream: t.stream, Expected: eventstore.NoStream, Actual: actual}
		}
	}
	if err := log.Judge(ctx, draft); err != nil {
		if taken, ok := errors.AsType[*eventstore.ClaimTakenError](err); ok {
			return nameTaken(claims, taken)
		}
		return err
	}
	for i := range draft.Events {
		e := &draft.Events[i]
		e.Position, e.Version, e.RecordedAt = out.AsOf+int64(i)+1, at.version+int64(i)+1, log.Now()
	}
	out.Events, out.Claim, out.Release, out.Messages = draft.Events, draft.Claim, draft.Release, draft.Messages
	return nil
}
