package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
)

// OnFailure says what becomes of an event that cannot be handled, however often it is tried. What may pass, such as a
// deadlock or a lost connection, is tried again and is no such failure.
type OnFailure string

const (
	// Halt stops the consumer exactly before the event, until somebody mends it. It is the zero value.
	Halt OnFailure = ""
	// Park lets the events of this stream wait, in order, from the one that cannot be handled on. All others flow.
	Park OnFailure = "park"
	// Skip passes over the event for good, and records it with the reason.
	Skip OnFailure = "skip"
)

// poisonError says which event could not be handled, and why it is of no use to try again.
type poisonError struct {
	event eventstore.Event
	err   error
}

func (e *poisonError) Error() string {
	return fmt.Sprintf("event %d, %s of %s: %v", e.event.Position, e.event.Type, e.event.Stream, e.err)
}

func (e *poisonError) Unwrap() error { return e.err }

// handlerError marks what Apply or React is to blame for.
type handlerError struct{ err error }

func (e *handlerError) Error() string { return e.err.Error() }
func (e *handlerError) Unwrap() error { return e.err }

// refuse does with an event that cannot be handled what the subscription says. An error says that the consumer does not go
// on; everything before the event is committed in any case.
func (t *tenure) refuse(ctx context.Context, event eventstore.Event, cause error) error {
	policy := t.c.sub.OnFailure
	if policy == Park && len(t.parked) >= t.c.cfg.ParkedMax {
		cause = fmt.Errorf("%d streams are parked already, so that this is not one bad event but many: %w", len(t.parked), cause)
		policy = Halt
	}
	e := t.end(event.Position, event.ID)
	switch policy {
	case Park:
		return t.park(ctx, event, cause, e)
	case Skip:
		e.queue = func(b *pgx.Batch) { t.skip(b, event, cause.Error(), skippedByPolicy) }
		return t.settle(ctx, e)
	default:
		if event.Position-1 > t.at.Position {
			if err := t.move(ctx, event.Position-1, uuid.Nil); err != nil {
				return err
			}
		} else if err := t.confirm(ctx); err != nil {
			return err
		}
		return &poisonError{event: event, err: cause}
	}
}

// confirm returns errFenced when the checkpoint is not where this process left it. Then the event is not to blame: what it
// follows was not applied, or was by another.
func (t *tenure) confirm(ctx context.Context) error {
	at, err := t.lease.reload(ctx)
	if err == nil && at.Position != t.at.Position {
		err = fmt.Errorf("checkpoint %s is at %d, and was left at %d: %w", t.lease.name, at.Position, t.at.Position, errFenced)
	}
	return err
}

// skippedByPolicy is who skips when a subscription asks for it.
const skippedByPolicy = "policy"

// blamed tells whether an error is the handler's.
func blamed(err error) (cause error, is bool) {
	if blame, ok := errors.AsType[*handlerError](err); ok {
		return blame.err, true
	}
	return nil, false
}
