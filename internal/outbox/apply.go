package outbox

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headrace/headrace/internal/eventstore"
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

// apply hands a batch to Apply. When it fails for a reason that will not pass, the batch is halved until the event at
// fault stands alone; then everything before that event is committed.
func (t *tenure) apply(ctx context.Context, batch portion) error {
	err := t.commit(ctx, batch)
	var blame *handlerError
	if err == nil || !errors.As(err, &blame) {
		return err
	}
	first := batch.events[0]
	if len(batch.events) == 1 {
		if first.Position-1 > t.at.Position {
			if err := t.move(ctx, first.Position-1, uuid.Nil); err != nil {
				return err
			}
		}
		return &poisonError{event: first, err: blame.err}
	}
	half := len(batch.events) / 2
	front := portion{events: batch.events[:half], to: batch.events[half-1].Position, toID: batch.events[half-1].ID}
	if err := t.apply(ctx, front); err != nil {
		return err
	}
	return t.apply(ctx, portion{events: batch.events[half:], to: batch.to, toID: batch.toID})
}

// commit applies a batch and moves the checkpoint in one transaction. The last two statements, move and commit, go out
// together; a move that matches no row fails, and then the commit is not executed.
func (t *tenure) commit(ctx context.Context, batch portion) error {
	conn, err := t.c.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("taking a connection: %w", err)
	}
	defer conn.Release()
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: sqlBeginAsync})
	if err != nil {
		return fmt.Errorf("beginning a batch: %w", err)
	}
	err = t.callApply(ctx, tx, batch.events)
	if status := conn.Conn().PgConn().TxStatus(); err == nil && status != 'T' && !conn.Conn().IsClosed() {
		err = &handlerError{fmt.Errorf("apply left the transaction in state %q", status)}
	}
	if err != nil {
		return errors.Join(err, ignoreClosed(tx.Rollback(context.WithoutCancel(ctx))))
	}
	to := t.at
	to.Position, to.EventID = batch.to, batch.toID
	sent := time.Since(t.lease.start)
	var b pgx.Batch
	t.lease.queueAdvance(&b, t.at, to)
	b.Queue("commit")
	results := conn.SendBatch(ctx, &b)
	id, err := scanAdvance(results)
	if err == nil {
		_, err = results.Exec()
		err = blameApply(err)
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	if err != nil {
		err = fmt.Errorf("committing up to %d: %w", batch.to, err)
		return errors.Join(err, ignoreClosed(tx.Rollback(context.WithoutCancel(ctx))))
	}
	t.lease.renewed.Store(int64(sent))
	to.EventID = id
	t.seen, t.seenID = to.Position, id
	t.committed(to)
	return nil
}

// blameApply decides who is at fault when the commit itself was refused: a deferred constraint is Apply's.
func blameApply(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && !transient(err) {
		return &handlerError{err}
	}
	return err
}

// ignoreClosed leaves out that there was nothing to roll back any more.
func ignoreClosed(err error) error {
	if err == nil || errors.Is(err, pgx.ErrTxClosed) || transient(err) {
		return nil
	}
	return err
}

func (t *tenure) callApply(ctx context.Context, tx pgx.Tx, events []eventstore.Event) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = t.panicked(p)
		}
	}()
	if err = t.c.sub.Apply(ctx, tx, events); err != nil && !transient(err) && !tx.Conn().IsClosed() {
		err = &handlerError{err}
	}
	return err
}

// react hands one event to React and moves the checkpoint over it.
func (t *tenure) react(ctx context.Context, event eventstore.Event) error {
	// React's effects are not fenced by the checkpoint, so a process that slept looks whether it still owns the lease.
	if t.lease.age() > t.lease.ttl/2 {
		if err := t.lease.renew(ctx); err != nil {
			return err
		}
	}
	err := t.callReact(ctx, event)
	var blame *handlerError
	if errors.As(err, &blame) {
		if event.Position-1 > t.at.Position {
			if err := t.move(ctx, event.Position-1, uuid.Nil); err != nil {
				return err
			}
		}
		return &poisonError{event: event, err: blame.err}
	}
	if err != nil {
		return err
	}
	if err := t.move(ctx, event.Position, event.ID); err != nil {
		return err
	}
	t.seen, t.seenID = event.Position, event.ID
	return nil
}

func (t *tenure) callReact(ctx context.Context, event eventstore.Event) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = t.panicked(p)
		}
	}()
	if err = t.c.sub.React(ctx, event); err != nil && !transientReaction(err) {
		err = &handlerError{err}
	}
	return err
}

// transientReaction also knows the passing failures of commands, which reactions issue.
func transientReaction(err error) bool {
	var overloaded *eventstore.OverloadedError
	var unknown *eventstore.UnknownOutcomeError
	var conflict *eventstore.ConflictError
	return transient(err) || errors.As(err, &overloaded) || errors.As(err, &unknown) || errors.As(err, &conflict)
}

func (t *tenure) panicked(p any) error {
	t.c.cfg.Logger.Error("a handler panicked", "name", t.c.sub.Name, "panic", p, "stack", string(debug.Stack()))
	return &handlerError{fmt.Errorf("panic: %v", p)}
}
