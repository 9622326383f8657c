package queries

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
)

// AsOf is a moment of a stream's past. Exactly one of its fields is given.
type AsOf struct {
	Position *int64     // when the log had come to here
	Time     *time.Time // after all events that were recorded until then, by the database's clock
	Version  *int64     // when the stream had this many events
}

// BeyondStreamError says that a version was asked for that a stream has not reached.
type BeyondStreamError struct {
	Stream  string
	Wanted  int64
	Version int64 // of the stream
}

func (e *BeyondStreamError) Error() string {
	return fmt.Sprintf("version %d is beyond that of %s, %d", e.Wanted, e.Stream, e.Version)
}

// TooLongError says that a state is the fold of more events than are folded at once.
type TooLongError struct {
	Stream string
	Limit  int
}

func (e *TooLongError) Error() string {
	return fmt.Sprintf("%s has more events up to there than are folded at once, %d", e.Stream, e.Limit)
}

// PastConfig bounds the folding of streams. The zero value works.
type PastConfig struct {
	MaxEvents int // folded for one state; 0 stands for 100,000
}

// Past answers what rows of a view were. It folds a row's stream with the view's own Evolve, so that it answers as the
// table would have answered then, and reads no table. It is for views of one row per stream, keyed by its name. It is safe
// for concurrent use.
type Past[R any] struct {
	store *eventstore.Store
	view  View[R]
	limit int
}

// NewPast returns the past of a view.
func NewPast[R any](store *eventstore.Store, view View[R], cfg PastConfig) *Past[R] {
	return &Past[R]{store: store, view: view, limit: or(cfg.MaxEvents, 100_000)}
}

// At returns the row of a stream as it was, or nil when it had not begun by then. A position beyond the head is a
// *eventstore.BeyondHeadError, a time in the future a *eventstore.FutureError, a version beyond the stream's a
// *BeyondStreamError, a longer stream than is folded a *TooLongError, and an AsOf that is not one moment an
// *ArgumentError.
func (p *Past[R]) At(ctx context.Context, stream string, asOf AsOf) (*R, error) {
	position, version, err := p.bounds(ctx, asOf)
	if err != nil || !storable(stream) {
		return nil, err
	}
	fold := p.begin(stream)
	if err := fold.to(ctx, position, version); err != nil {
		return nil, err
	}
	if asOf.Version != nil && fold.version > 0 && fold.version < version {
		return nil, &BeyondStreamError{Stream: stream, Wanted: version, Version: fold.version}
	}
	return fold.row(), nil
}

// bounds is the last position and the last version that count.
func (p *Past[R]) bounds(ctx context.Context, asOf AsOf) (position, version int64, err error) {
	given := 0
	for _, is := range []bool{asOf.Position != nil, asOf.Time != nil, asOf.Version != nil} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return 0, 0, &ArgumentError{Argument: "asOf", Reason: "must be exactly one of position, time and version"}
	case asOf.Version != nil:
		if *asOf.Version < 0 {
			return 0, 0, &ArgumentError{Argument: "asOf.version", Reason: "must not be negative"}
		}
		return math.MaxInt64, *asOf.Version, nil
	case asOf.Time != nil:
		position, err = p.store.PositionAt(ctx, *asOf.Time)
		return position, math.MaxInt64, err
	}
	head, err := p.store.Head(ctx)
	if err == nil && *asOf.Position > head.Position {
		err = &eventstore.BeyondHeadError{Position: *asOf.Position, Head: head.Position}
	}
	return *asOf.Position, math.MaxInt64, err
}

// After returns the row of a stream after each of its events that are given: a run of versions without holes. It folds
// the stream once. Nil is a row that is not there. The errors are those of At.
func (p *Past[R]) After(ctx context.Context, events []eventstore.Event) ([]*R, error) {
	if len(events) == 0 {
		return nil, nil
	}
	fold := p.begin(events[0].Stream)
	if err := fold.to(ctx, math.MaxInt64, events[0].Version-1); err != nil {
		return nil, err
	}
	rows := make([]*R, len(events))
	for i, e := range events {
		if err := fold.step(e); err != nil {
			return nil, err
		}
		rows[i] = fold.row()
	}
	return rows, nil
}

// With returns the row of a stream as it would be if events followed a version of it, or its end when that comes first.
// The errors are those of At.
func (p *Past[R]) With(ctx context.Context, stream string, version int64, events []eventstore.Event) (*R, error) {
	fold := p.begin(stream)
	if !storable(stream) {
		return nil, nil
	}
	if err := fold.to(ctx, math.MaxInt64, version); err != nil {
		return nil, err
	}
	for _, e := range events {
		if err := fold.step(e); err != nil {
			return nil, err
		}
	}
	return fold.row(), nil
}

// replay is the fold of one stream on its way.
type replay[R any] struct {
	past    *Past[R]
	folder  folder[R]
	slot    slot[R]
	stream  string
	version int64 // folded so far
}

func (p *Past[R]) begin(stream string) *replay[R] {
	return &replay[R]{
		past: p, stream: stream,
		folder: folder[R]{view: p.view.withDefaults(), registry: p.store.Registry()},
	}
}

// replayPage is how many events are read at once.
const replayPage = 500

// to folds on, page by page, through the events that are neither beyond the position nor beyond the version.
func (r *replay[R]) to(ctx context.Context, position, version int64) error {
	for r.version < version {
		want := int(min(replayPage, version-r.version))
		events, err := r.past.store.ReadStream(ctx, r.stream, eventstore.StreamQuery{After: r.version, Limit: want})
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Position > position {
				return nil
			}
			if err := r.step(e); err != nil {
				return err
			}
		}
		if len(events) < want {
			return nil
		}
	}
	return nil
}

func (r *replay[R]) step(e eventstore.Event) error {
	if e.Version > int64(r.past.limit) {
		return &TooLongError{Stream: r.stream, Limit: r.past.limit}
	}
	r.version = e.Version
	if !(Projection{Types: r.past.view.Types}).Takes(e.Type) {
		return nil
	}
	payload, err := decode(r.folder.registry, e)
	if err != nil {
		return err
	}
	r.folder.step(&r.slot, e, payload)
	return nil
}

// row is a copy of the row as it is now.
func (r *replay[R]) row() *R {
	if !r.slot.exists {
		return nil
	}
	row := r.slot.after
	return &row
}

// History returns a page of a stream's events in order of version, and the stream's version; 0 says that there is no such
// stream. The cursors are versions. A page that cannot be is an *ArgumentError.
func History(
	ctx context.Context, store *eventstore.Store, stream string, cfg PageConfig, args PageArgs,
) (page Slice[eventstore.Event], version int64, err error) {
	size, backward, err := args.limit(cfg.withDefaults())
	if err != nil {
		return page, 0, err
	}
	after, err := versionCursor("after", args.After, 0)
	if err != nil {
		return page, 0, err
	}
	before, err := versionCursor("before", args.Before, math.MaxInt64)
	if err != nil || !storable(stream) {
		return page, 0, err
	}
	if version, err = store.StreamVersion(ctx, stream); err != nil {
		return page, 0, err
	}
	last := min(version, before-1)
	first := max(after+1, 1)
	if backward {
		first = max(first, last-int64(size)+1)
	}
	last = min(last, first+int64(size)-1)
	page.HasPrevious, page.HasNext = first > 1 && version > 0, last < version
	if first > last {
		return page, version, nil
	}
	page.Rows, err = store.ReadStream(ctx, stream, eventstore.StreamQuery{After: first - 1, Limit: int(last - first + 1)})
	for _, e := range page.Rows {
		page.Cursors = append(page.Cursors, strconv.FormatInt(e.Version, 10))
	}
	return page, version, err
}

var errVersion = errors.New("is not a cursor of this list")

func versionCursor(name string, text *string, absent int64) (int64, error) {
	if text == nil {
		return absent, nil
	}
	version, err := strconv.ParseInt(*text, 10, 64)
	if err != nil || version < 0 || version > math.MaxInt64-1000 {
		return 0, &ArgumentError{Argument: name, Reason: errVersion.Error()}
	}
	return version, nil
}
