package eventstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// defaultPage is how many events a read returns at most when its query names no limit: pages of 500 measured fastest.
const defaultPage = 500

// defaultWindow is how many positions one filtered read looks at when its query names no window.
const defaultWindow = 20_000

// StreamQuery asks for a run of one stream's events. The zero value asks for the first page.
type StreamQuery struct {
	After    int64 // versions above it; forward reads only
	Backward bool  // from the newest to the oldest
	Before   int64 // versions below it; backward reads only; 0: from the end
	Limit    int   // 0: 500
}

// LogQuery asks for a run of the log. The zero value asks for the first page of the whole log.
type LogQuery struct {
	After  int64     // positions above it
	Seen   uuid.UUID // the event that must be at After, for who goes on from there; zero: whichever is
	Until  int64     // positions up to it; 0: the head
	Stream string    // empty: all streams
	Types  []string  // none: all types
	Shard  int       // of Shards: the streams for which Shard(stream, Shards) is this
	Shards int       // 0 and 1: all streams; not together with Stream
	Limit  int       // events; 0: 500
	Window int       // positions a filtered read looks at; 0: 20,000
}

// Page is what a read of the log found.
type Page struct {
	Events    []Event
	SeenID    uuid.UUID // the event at the query's After; zero at 0
	ScannedTo int64     // every event up to here was looked at; go on after it
	ScannedID uuid.UUID // the event there; zero at 0
	Head      int64     // of the log, when the page was read
}

// ReadStream returns events of one stream in order of version, or against it. A stream that does not exist has none.
func (s *Store) ReadStream(ctx context.Context, stream string, q StreamQuery) ([]Event, error) {
	sql, bound := sqlReadStream, q.After
	if q.Backward {
		sql, bound = sqlReadStreamBackward, q.Before
		if bound <= 0 {
			bound = math.MaxInt64
		}
	}
	events, err := readEvents(ctx, s.pool, sql, stream, bound, limit(q.Limit))
	if err != nil {
		return nil, fmt.Errorf("reading stream %s: %w", stream, err)
	}
	return events, nil
}

// ReadLog returns events of the log in order of position. With a filter it looks at a window of positions and may
// return few events or none while there are more: go on after ScannedTo until that is Head. A query that begins beyond
// the head is a *BeyondHeadError, and one that follows an event which is not there a *DivergedError.
func (s *Store) ReadLog(ctx context.Context, q LogQuery) (Page, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return Page{}, fmt.Errorf("reading the log after %d: %w", q.After, err)
	}
	// On one connection: two may lead to two servers while one takes the place of the other.
	page, err := readLog(ctx, conn, q)
	conn.Release()
	var gone *DivergedError
	var beyond *BeyondHeadError
	if errors.As(err, &gone) || (q.Seen != uuid.Nil && errors.As(err, &beyond)) {
		_ = s.Review(ctx) // who is told that the log has another history finds its epoch raised
	}
	return page, err
}

func readLog(ctx context.Context, from *pgxpool.Conn, q LogQuery) (Page, error) {
	var head int64
	var before *uuid.UUID
	if err := from.QueryRow(ctx, sqlHeadAndEvent, q.After).Scan(&head, &before); err != nil {
		return Page{}, fmt.Errorf("reading the head of the log: %w", err)
	}
	page := Page{Head: head, ScannedTo: q.After}
	if before != nil {
		page.SeenID, page.ScannedID = *before, *before
	}
	until := head
	if q.Until > 0 {
		until = min(until, q.Until)
	}
	switch {
	case q.After > head:
		return Page{}, &BeyondHeadError{Position: q.After, Head: head}
	case q.Seen != uuid.Nil && q.Seen != page.ScannedID:
		return Page{}, &DivergedError{Position: q.After, Reason: "another event is there now"}
	case q.After >= until:
		return page, nil
	}
	size := limit(q.Limit)
	var batch pgx.Batch
	switch {
	case q.Stream != "":
		batch.Queue(sqlReadLogStream, q.After, until, size, q.Stream, types(q))
	case q.Shards > 1:
		until = min(until, q.After+window(q.Window))
		batch.Queue(sqlReadLogShard, q.After, until, size, types(q), q.Shards, q.Shard)
	case len(q.Types) > 0:
		until = min(until, q.After+window(q.Window))
		batch.Queue(sqlReadLogTypes, q.After, until, size, q.Types)
	default:
		until = min(until, q.After+int64(size))
		batch.Queue(sqlReadLog, q.After, until, size)
	}
	filtered := q.Stream != "" || q.Shards > 1 || len(q.Types) > 0
	if filtered {
		batch.Queue(sqlEventID, until)
	}
	results := from.SendBatch(ctx, &batch)
	rows, err := results.Query()
	if err == nil {
		page.Events, err = collect(rows)
	}
	if err == nil && filtered {
		page.ScannedTo, err = until, results.QueryRow().Scan(&page.ScannedID)
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return Page{}, fmt.Errorf("reading the log after %d: %w", q.After, err)
	}
	if n := len(page.Events); n > 0 && (n == size || !filtered) {
		page.ScannedTo, page.ScannedID = page.Events[n-1].Position, page.Events[n-1].ID
	}
	return page, nil
}

// types lists a query's types as Postgres takes none, which is not null.
func types(q LogQuery) []string {
	if q.Types == nil {
		return []string{}
	}
	return q.Types
}

func window(n int) int64 {
	if n <= 0 {
		return defaultWindow
	}
	return int64(n)
}

func limit(n int) int {
	if n <= 0 {
		return defaultPage
	}
	return n
}

// readEvents runs a statement whose parameters come in the order that its text has them, except that streams come first
// in reads of a stream.
func readEvents(ctx context.Context, q querier, sql string, args ...any) ([]Event, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return collect(rows)
}

func collect(rows pgx.Rows) ([]Event, error) {
	defer rows.Close()
	var events []Event
	for rows.Next() {
		var e Event
		if err := scan(rows, &e); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, rows.Err()
}

func scan(row pgx.Row, e *Event) error {
	return row.Scan(&e.Position, &e.Version, &e.RecordedAt, &e.ID, &e.Stream, &e.Type, &e.SchemaVersion,
		(*[]byte)(&e.Data), (*[]byte)(&e.Metadata))
}

// Stream goes through one stream after a version, page by page, to its end.
func (s *Store) Stream(ctx context.Context, stream string, after int64) iter.Seq2[Event, error] {
	return streamPages(stream, after, func(after int64) ([]Event, error) {
		return readEvents(ctx, s.pool, sqlReadStream, stream, after, defaultPage)
	})
}

// streamPages goes through the pages of one stream, which read gives.
func streamPages(stream string, after int64, read func(after int64) ([]Event, error)) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		after := after // each use starts anew
		for {
			events, err := read(after)
			if err != nil {
				yield(Event{}, fmt.Errorf("reading stream %s: %w", stream, err))
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
			if len(events) < defaultPage {
				return
			}
			after = events[len(events)-1].Version
		}
	}
}

// Log goes through the log, page by page, to q.Until or to where the head was at the beginning. Limit is the size of a
// page.
func (s *Store) Log(ctx context.Context, q LogQuery) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		q := q // each use starts anew
		for {
			page, err := s.ReadLog(ctx, q)
			if err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range page.Events {
				if !yield(e, nil) {
					return
				}
			}
			if q.Until <= 0 || q.Until > page.Head {
				q.Until = page.Head
			}
			if page.ScannedTo >= q.Until {
				return
			}
			q.After = page.ScannedTo
		}
	}
}

// EventAt returns the event at a position, and false when there is none.
func (s *Store) EventAt(ctx context.Context, position int64) (Event, bool, error) {
	var e Event
	err := scan(s.pool.QueryRow(ctx, sqlEventAt, position), &e)
	if errors.Is(err, pgx.ErrNoRows) {
		return Event{}, false, nil
	}
	if err != nil {
		return Event{}, false, fmt.Errorf("reading the event at %d: %w", position, err)
	}
	return e, true, nil
}

// Holds tells whether the log holds the event at the position.
func (s *Store) Holds(ctx context.Context, position int64, id uuid.UUID) (bool, error) {
	var there uuid.UUID
	err := s.pool.QueryRow(ctx, sqlEventID, position).Scan(&there)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return false, fmt.Errorf("reading the event at %d: %w", position, err)
	}
	return err == nil && there == id, nil
}

// EventsAt returns those of the events at these positions that there are, in order of position, with one statement.
func (s *Store) EventsAt(ctx context.Context, positions []int64) ([]Event, error) {
	events, err := readEvents(ctx, s.pool, sqlEventsAt, positions)
	if err != nil {
		return nil, fmt.Errorf("reading the events at %d positions: %w", len(positions), err)
	}
	return events, nil
}

// LastOf returns the last event of any of these types after one position and up to another, and false when there is none.
// It looks at as many positions as there are from the end to that event.
func (s *Store) LastOf(ctx context.Context, types []string, after, until int64) (Event, bool, error) {
	events, err := readEvents(ctx, s.pool, sqlLastOf, types, after, until)
	if err != nil {
		return Event{}, false, fmt.Errorf("reading the last event before %d: %w", until, err)
	}
	if len(events) == 0 {
		return Event{}, false, nil
	}
	return events[0], true, nil
}

// Head returns the token of the newest event; its position is 0 when the log is empty.
func (s *Store) Head(ctx context.Context) (Token, error) {
	var t Token
	if err := s.pool.QueryRow(ctx, sqlLogHead).Scan(&t.LogID, &t.Epoch, &t.Position, &t.EventID); err != nil {
		return Token{}, fmt.Errorf("reading the head of the log: %w", err)
	}
	if s.note(t.Epoch); t.Epoch < s.Mark(0).Epoch {
		// A server that was replaced, or a backup that was put back and has not been looked at.
		return Token{}, errors.Join(errOlder, s.Review(ctx))
	}
	return t, nil
}

// StreamVersion returns the version of a stream's newest event, 0 when there is no such stream.
func (s *Store) StreamVersion(ctx context.Context, stream string) (int64, error) {
	return streamVersion(ctx, s.pool, stream)
}

func streamVersion(ctx context.Context, q querier, stream string) (int64, error) {
	var version int64
	if err := q.QueryRow(ctx, sqlStreamVersion, stream).Scan(&version); err != nil {
		return 0, fmt.Errorf("reading the version of %s: %w", stream, err)
	}
	return version, nil
}

// PositionAt returns the position of the last event that was recorded at a time or before it, 0 when there was none: a
// time maps to a position, since recorded_at never goes back along the log. It looks at as many events as the log's length
// has binary digits. A time that the database's clock has not reached is a *FutureError. An event that is being
// committed at this moment may still be recorded at the same time; what lies further back does not change.
func (s *Store) PositionAt(ctx context.Context, t time.Time) (int64, error) {
	var position int64
	var now time.Time
	if err := s.pool.QueryRow(ctx, sqlPositionAt, t).Scan(&position, &now); err != nil {
		return 0, fmt.Errorf("reading the position at %s: %w", t, err)
	}
	if t.After(now) {
		return 0, &FutureError{Time: t, Now: now}
	}
	return position, nil
}

// Types lists the event types that the registry knows, in order.
func (r *Registry) Types() []string {
	names := make([]string, 0, len(r.byName))
	for name := range r.byName {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
