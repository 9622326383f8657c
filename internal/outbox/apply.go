package outbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headrace/headrace/internal/eventstore"
)

// apply hands a batch to Apply, but for what waits of parked streams. When it fails for a reason that will not pass, the
// batch is halved until the event at fault stands alone: everything else of the batch is committed, and the event is dealt
// with as the subscription says.
func (t *tenure) apply(ctx context.Context, batch portion) error {
	batch.events = t.flowing(batch.events)
	if len(batch.events) == 0 {
		return nil
	}
	err := t.commit(ctx, batch.events, t.end(batch.to, batch.toID))
	cause, poison := blamed(err)
	if !poison {
		return err
	}
	if len(batch.events) == 1 {
		return t.refuse(ctx, batch.events[0], cause)
	}
	half := len(batch.events) / 2
	front := portion{events: batch.events[:half], to: batch.events[half-1].Position, toID: batch.events[half-1].ID}
	if err := t.apply(ctx, front); err != nil {
		return err
	}
	return t.apply(ctx, portion{events: batch.events[half:], to: batch.to, toID: batch.toID})
}

// commit applies events and ends in one transaction. The statements of the ending and the commit go out together; a move
// of the checkpoint that matches no row fails, and then the commit is not executed.
func (t *tenure) commit(ctx context.Context, events []eventstore.Event, e *ending) error {
	conn, err := t.c.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("taking a connection: %w", err)
	}
	defer conn.Release()
	began := time.Now()
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: beginBatch(t.away)})
	if err != nil {
		return fmt.Errorf("beginning a batch: %w", err)
	}
	err = t.callApply(ctx, tx, events)
	if status := conn.Conn().PgConn().TxStatus(); err == nil && status != 'T' && !conn.Conn().IsClosed() {
		err = &handlerError{fmt.Errorf("apply left the transaction in state %q", status)}
	}
	if err != nil {
		return t.undo(ctx, tx, began, err)
	}
	sent := time.Since(t.lease.start)
	var b pgx.Batch
	e.add(t, &b)
	b.Queue("commit")
	results := conn.SendBatch(ctx, &b)
	if err = e.read(results); err == nil {
		_, err = results.Exec()
		err = blameApply(err)
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return t.undo(ctx, tx, began, fmt.Errorf("committing up to %d: %w", e.to.Position, err))
	}
	t.lease.renewed.Store(int64(sent))
	e.done(t)
	return nil
}

// beginBatch is the statement that begins a batch which Apply may leave alone for so long. An owner that froze, or that the
// network lost, holds locks on rows that its successor has to write; without this Postgres would keep them until TCP gives
// the connection up, which may take hours.
func beginBatch(away time.Duration) string {
	return sqlBeginBatch + strconv.FormatInt(min(max(away.Milliseconds(), 1), math.MaxInt32), 10)
}

// undo rolls a batch back. When the connection ended and Apply may have left it alone for too long, that is no failure of an
// event: Apply is given twice the time from then on, for as long as this process is the owner.
func (t *tenure) undo(ctx context.Context, tx pgx.Tx, began time.Time, err error) error {
	if took := time.Since(began); tx.Conn().IsClosed() && ctx.Err() == nil && took > t.away {
		err = fmt.Errorf("the connection ended in a batch that took %v; perhaps nothing was sent for %v, and it is given twice that now: %w",
			took.Round(time.Millisecond), t.away, err)
		t.away *= 2
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	return errors.Join(err, ignoreClosed(tx.Rollback(bounded)))
}

// rollbackTimeout is how long a rollback may take before the connection is given up, which is one as well.
const rollbackTimeout = 2 * time.Second

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

// react hands one event to React and moves the checkpoint over it, or deals with it as the subscription says.
func (t *tenure) react(ctx context.Context, event eventstore.Event) error {
	if len(t.flowing([]eventstore.Event{event})) == 0 {
		return nil
	}
	err := t.fencedReact(ctx, event)
	if cause, poison := blamed(err); poison {
		return t.refuse(ctx, event, cause)
	}
	if err != nil {
		return err
	}
	return t.settle(ctx, t.end(event.Position, event.ID))
}

// fencedReact calls React. Its effects are not fenced by the checkpoint, so a process that slept looks whether it still
// owns the lease, and the event says in which history it was found.
func (t *tenure) fencedReact(ctx context.Context, event eventstore.Event) error {
	if t.lease.age() > t.lease.ttl/2 {
		if err := t.lease.renew(ctx); err != nil {
			return err
		}
	}
	event.Epoch = t.at.Epoch
	return t.callReact(ctx, event)
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

// transientReaction also knows the passing failures of commands, which reactions issue. When the log has another history than
// the event was found in, going back to the checkpoint finds out whether it is still there.
func transientReaction(err error) bool {
	var overloaded *eventstore.OverloadedError
	var history *eventstore.HistoryError
	var unknown *eventstore.UnknownOutcomeError
	var conflict *eventstore.ConflictError
	return transient(err) || errors.As(err, &overloaded) || errors.As(err, &unknown) || errors.As(err, &conflict) || errors.As(err, &history)
}

func (t *tenure) panicked(p any) error {
	t.c.cfg.Logger.Error("a handler panicked", "name", t.c.sub.Name, "panic", p, "stack", string(debug.Stack()))
	return &handlerError{fmt.Errorf("panic: %v", p)}
}
