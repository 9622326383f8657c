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
	After  int64    // positions above it
	Until  int64    // positions up to it; 0: the head
	Stream string   // empty: all streams
	Types  []string // none: all types
	Shard  int      // of Shards: the streams for which Shard(stream, Shards) is this
	Shards int      // 0 and 1: all streams; not together with Stream
	Limit  int      // events; 0: 500
	Window int      // positions a filtered read looks at; 0: 20,000
}

// Page is what a read of the log found.
type Page struct {
	Events    []Event
	ScannedTo int64 // every event up to here was looked at; go on after it
	Head      int64 // of the log, when the page was read
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
// the head is a *BeyondHeadError.
func (s *Store) ReadLog(ctx context.Context, q LogQuery) (Page, error) {
	var head int64
	if err := s.pool.QueryRow(ctx, sqlHeadPosition).Scan(&head); err != nil {
		return Page{}, fmt.Errorf("reading the head of the log: %w", err)
	}
	page := Page{Head: head, ScannedTo: q.After}
	until := head
	if q.Until > 0 {
		until = min(until, q.Until)
	}
	if q.After > head {
		return Page{}, &BeyondHeadError{Position: q.After, Head: head}
	}
	if q.After >= until {
		return page, nil
	}
	size := limit(q.Limit)
	var err error
	switch {
	case q.Stream != "":
		page.Events, err = readEvents(ctx, s.pool, sqlReadLogStream, q.After, until, size, q.Stream, types(q))
	case q.Shards > 1:
		until = min(until, q.After+window(q.Window))
		page.Events, err = readEvents(ctx, s.pool, sqlReadLogShard, q.After, until, size, types(q), q.Shards, q.Shard)
	case len(q.Types) > 0:
		until = min(until, q.After+window(q.Window))
		page.Events, err = readEvents(ctx, s.pool, sqlReadLogTypes, q.After, until, size, q.Types)
	default:
		until = min(until, q.After+int64(size))
		page.Events, err = readEvents(ctx, s.pool, sqlReadLog, q.After, until, size)
	}
	if err != nil {
		return Page{}, fmt.Errorf("reading the log after %d: %w", q.After, err)
	}
	page.ScannedTo = until
	if len(page.Events) == size {
		page.ScannedTo = page.Events[size-1].Position
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

// CheckToken tells whether the log still holds what a token stands for: nil, *BeyondHeadError or *DivergedError. A token
// of an earlier epoch is good as long as its event is still there.
func (s *Store) CheckToken(ctx context.Context, t Token) error {
	if t == (Token{}) {
		return nil
	}
	head, err := s.Head(ctx)
	if err != nil {
		return err
	}
	switch {
	case t.LogID != head.LogID:
		return &DivergedError{Position: t.Position, Reason: "it is of another log"}
	case t.Position == 0:
		return nil
	case t.Position > head.Position && t.Epoch == head.Epoch:
		return &BeyondHeadError{Position: t.Position, Head: head.Position}
	case t.Position > head.Position || t.Epoch > head.Epoch:
		return &DivergedError{Position: t.Position, Reason: "the log was restored to before it"}
	}
	var id uuid.UUID
	if err := s.pool.QueryRow(ctx, sqlEventID, t.Position).Scan(&id); err != nil {
		return fmt.Errorf("reading the event at %d: %w", t.Position, err)
	}
	if id != t.EventID {
		return &DivergedError{Position: t.Position, Reason: "another event is there now"}
	}
	return nil
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
