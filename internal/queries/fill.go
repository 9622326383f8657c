package queries

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/headrace/headrace/internal/eventstore"
)

// fillTries is how often a worker tries a batch again that failed for a reason which may pass, waiting longer each time:
// about two minutes in all, enough for Postgres to restart.
const fillTries = 30

// share is a run of the log with those events that are one worker's.
type share struct {
	events []eventstore.Event
	to     eventstore.Token // the end of the run
	head   int64
}

// fill has all workers take the log up to one position near its head.
func (r *rebuild) fill(ctx context.Context, f *fill) error {
	for {
		head, err := r.store.Head(ctx)
		if err != nil {
			return err
		}
		if err := r.fillTo(ctx, f, head.Position); err != nil {
			return err
		}
		now, err := r.store.Head(ctx)
		if err != nil {
			return err
		}
		if now.Position-head.Position < rebuildPage {
			return nil
		}
	}
}

// fillTo has all workers take the log up to a position, which must not be beyond the head.
func (r *rebuild) fillTo(ctx context.Context, f *fill, until int64) error {
	if f.position() >= until && f.even() {
		return nil
	}
	for _, w := range f.workers {
		until = max(until, w.at.Position) // where all are to meet
	}
	group, ctx := errgroup.WithContext(ctx)
	shares := make([]chan share, len(f.workers))
	for i, w := range f.workers {
		shares[i] = make(chan share, 2)
		group.Go(func() error { return r.work(ctx, f, w, shares[i]) })
	}
	group.Go(func() error {
		defer func() {
			for _, c := range shares {
				close(c)
			}
		}()
		return r.deal(ctx, f, until, shares)
	})
	return group.Wait()
}

// even tells whether all workers stand at one position.
func (f *fill) even() bool {
	for _, w := range f.workers {
		if w.at.Position != f.workers[0].at.Position {
			return false
		}
	}
	return true
}

// deal reads the log once, from where the hindmost worker stands, and gives each worker the events of its streams.
func (r *rebuild) deal(ctx context.Context, f *fill, until int64, shares []chan share) error {
	head, err := r.store.Head(ctx)
	if err != nil {
		return err
	}
	starts := make([]int64, len(f.workers))
	for i, w := range f.workers {
		starts[i] = w.at.Position
	}
	for after := f.position(); after < until; {
		page, err := r.read(ctx, f.p, after, until, len(f.workers))
		if err != nil {
			return err
		}
		to := eventstore.Token{LogID: head.LogID, Epoch: head.Epoch, Position: page.ScannedTo}
		if to.EventID, err = r.eventID(ctx, page); err != nil {
			return err
		}
		dealt := make([][]eventstore.Event, len(shares))
		for _, e := range page.Events {
			shard := eventstore.Shard(e.Stream, len(shares))
			if e.Position > starts[shard] {
				dealt[shard] = append(dealt[shard], e)
			}
		}
		for i, c := range shares {
			if to.Position <= starts[i] {
				continue
			}
			select {
			case c <- share{events: dealt[i], to: to, head: page.Head}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		after = page.ScannedTo
	}
	return nil
}

// read joins pages of the log to as many events as the workers take at once, a batch each.
func (r *rebuild) read(ctx context.Context, p Projection, after, until int64, workers int) (eventstore.Page, error) {
	want := r.cfg.Batch * workers
	batch := eventstore.Page{ScannedTo: after}
	for len(batch.Events) < want && batch.ScannedTo < until {
		var page eventstore.Page
		err := r.retrying(ctx, func() (err error) {
			page, err = r.store.ReadLog(ctx, eventstore.LogQuery{
				After: batch.ScannedTo, Until: until, Types: p.Types, Limit: want - len(batch.Events), Window: 4 * want,
			})
			return err
		})
		if err != nil {
			return batch, err
		}
		if page.ScannedTo <= batch.ScannedTo {
			return batch, &eventstore.BeyondHeadError{Position: until, Head: page.Head}
		}
		if batch.Events == nil {
			batch.Events = page.Events
		} else {
			batch.Events = append(batch.Events, page.Events...)
		}
		batch.Head, batch.ScannedTo = page.Head, page.ScannedTo
	}
	return batch, nil
}

// eventID is the id of the event at the position up to which a page looked.
func (r *rebuild) eventID(ctx context.Context, page eventstore.Page) (uuid.UUID, error) {
	if n := len(page.Events); n > 0 && page.Events[n-1].Position == page.ScannedTo {
		return page.Events[n-1].ID, nil
	}
	e, found, err := r.store.EventAt(ctx, page.ScannedTo)
	if err != nil {
		return uuid.Nil, err
	}
	if !found {
		return uuid.Nil, &eventstore.DivergedError{Position: page.ScannedTo, Reason: "the log has no such event any more"}
	}
	return e.ID, nil
}

// work applies a worker's shares until they end.
func (r *rebuild) work(ctx context.Context, f *fill, w *worker, shares <-chan share) error {
	var gathered share
	for {
		next, more := <-shares
		if more {
			if len(gathered.events) == 0 {
				gathered.events = next.events
			} else {
				gathered.events = append(gathered.events, next.events...)
			}
			gathered.to, gathered.head = next.to, next.head
			// Shares of several runs make one batch, unless nothing more is ready.
			if len(gathered.events) < r.cfg.Batch && len(shares) > 0 {
				continue
			}
		}
		if gathered.to.Position > w.at.Position {
			began := time.Now()
			gathered.events = w.flowing(gathered.events)
			if err := r.applyShare(ctx, f, w, gathered); err != nil {
				return err
			}
			r.tell(RebuildProgress{
				View: f.p.Name, Checkpoint: f.p.Checkpoint(), Phase: PhaseFill, Worker: w.shard, Workers: len(f.workers),
				Position: w.at.Position, Head: gathered.head, Events: w.events,
			})
			r.pace.rest(ctx, time.Since(began))
			gathered.events = nil
		}
		if !more {
			return ctx.Err()
		}
	}
}

// applyShare applies and records a share. When it fails for a reason that will not pass, it is halved until the event at
// fault stands alone, and everything before that is applied.
func (r *rebuild) applyShare(ctx context.Context, f *fill, w *worker, s share) error {
	err := r.record(ctx, f, w, s.to, func(tx pgx.Tx) error { return f.p.Apply(ctx, tx, s.events) })
	if err == nil {
		w.events += int64(len(s.events))
		return nil
	}
	var lost *RebuildingError
	if ctx.Err() != nil || len(s.events) == 0 || errors.As(err, &lost) || eventstore.Transient(err) {
		return err
	}
	if len(s.events) == 1 {
		return r.refuse(ctx, f, w, s, err)
	}
	half := len(s.events) / 2
	last := s.events[half-1]
	to := s.to
	to.Position, to.EventID = last.Position, last.ID
	if err := r.applyShare(ctx, f, w, share{events: s.events[:half], to: to}); err != nil {
		return err
	}
	return r.applyShare(ctx, f, w, share{events: w.flowing(s.events[half:]), to: s.to})
}

// record does something together with the move of a worker's checkpoint.
func (r *rebuild) record(ctx context.Context, f *fill, w *worker, to eventstore.Token, do func(pgx.Tx) error) error {
	err := r.retrying(ctx, func() error {
		return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, sqlAsyncCommit); err != nil {
				return err
			}
			if err := do(tx); err != nil {
				return err
			}
			return r.move(ctx, tx, f, w, to)
		})
	})
	if err != nil && !errors.Is(err, errMoved) {
		return err
	}
	w.at = to
	return nil
}

// move moves a worker's checkpoint.
func (r *rebuild) move(ctx context.Context, tx pgx.Tx, f *fill, w *worker, to eventstore.Token) error {
	name := f.p.Checkpoint() + fillSuffix
	tag, err := tx.Exec(ctx, sqlMoveWorker, name, w.shard, to.Position, to.EventID, to.LogID, to.Epoch, w.epoch, w.at.Position,
		rebuildLease.Seconds())
	if err != nil {
		return fmt.Errorf("move checkpoint %s: %w", name, err)
	}
	if tag.RowsAffected() == 0 {
		return r.whyNotMoved(ctx, tx, f, w, to.Position)
	}
	return nil
}

// errMoved says that a commit whose answer was lost had succeeded.
var errMoved = errors.New("the checkpoint has moved already")

// whyNotMoved says why a worker's checkpoint is not where this process left it.
func (r *rebuild) whyNotMoved(ctx context.Context, tx pgx.Tx, f *fill, w *worker, to int64) error {
	rows, err := checkpointRows(ctx, tx, f.p.Checkpoint()+fillSuffix)
	if err != nil {
		return err
	}
	for _, row := range rows {
		switch {
		case row.Shard != w.shard || row.Epoch != w.epoch:
		case row.Position == to:
			return errMoved
		default: // batches commit without waiting for the disk
			return fmt.Errorf("Postgres restarted without its last moments: %s is at %d again, not at %d; run this once more",
				f.p.Checkpoint(), row.Position, w.at.Position)
		}
	}
	return &RebuildingError{Checkpoint: f.p.Checkpoint()}
}

// retrying calls f until it succeeds, fails for a reason that will not pass, or has been tried often enough.
func (r *rebuild) retrying(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		if err == nil || ctx.Err() != nil || !eventstore.Transient(err) || try == fillTries {
			return err
		}
		if rest(ctx, min(5*time.Second, time.Duration(try)*100*time.Millisecond)); ctx.Err() != nil {
			return err
		}
	}
}
