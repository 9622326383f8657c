package queries

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
)

// EventFilter says which events a subscriber gets. The zero value stands for all.
type EventFilter struct {
	Stream string   // of this stream only
	Types  []string // of these types only
}

func (f EventFilter) takes(e *eventstore.Event) bool {
	return (f.Stream == "" || e.Stream == f.Stream) && (len(f.Types) == 0 || slices.Contains(f.Types, e.Type))
}

// Logged is an event, and the mark of its position under the epoch in which it was read. Who has seen the event and comes
// again with the mark is told when it is there no more.
type Logged struct {
	eventstore.Event
	Mark eventstore.Mark
}

// Events yields the events after a position, first those that are there and then live ones, in the order of the log,
// each once. Nil stands for the head of the log at the time of the call: the starting point is fixed before Events
// returns. A position beyond the head is a *eventstore.BeyondHeadError. When the log is restored to before what the
// subscriber has seen, by the last event that it was given, the sequence ends with a *eventstore.DivergedError. The
// sequence ends when the context ends; a database that cannot be reached is a pause, and any other error in reading the
// log ends the sequence. It may be ranged over once. It needs Run to be running.
func (t *Tail) Events(ctx context.Context, after *int64, f EventFilter) (iter.Seq2[Logged, error], error) {
	from, err := t.start(ctx, after)
	if err != nil {
		return nil, err
	}
	return t.events(ctx, from, f), nil
}

func (t *Tail) events(ctx context.Context, from beginning, f EventFilter) iter.Seq2[Logged, error] {
	return func(yield func(Logged, error) bool) {
		t.join()
		defer t.leave()
		follower := t.follow(f, from)
		for {
			events, err := follower.next(ctx)
			if err != nil {
				yield(Logged{}, err)
				return
			}
			if len(events) == 0 {
				return
			}
			for i := range events {
				mark := follower.under
				mark.Position = events[i].Position
				if !yield(Logged{Event: events[i], Mark: mark}, nil) {
					return
				}
			}
		}
	}
}

// Check tells whether a subscription may begin after a position: nil, or *eventstore.BeyondHeadError.
func (t *Tail) Check(ctx context.Context, after int64) error {
	_, err := t.start(ctx, &after)
	return err
}

// beginning is where a subscription begins, and what the tail had seen of the log by then.
type beginning struct {
	spot
	rewinds int
}

// start says where a subscription begins. A position that the tail has come to is known to be in the log.
func (t *Tail) start(ctx context.Context, after *int64) (beginning, error) {
	position := int64(0)
	if after != nil {
		position = max(*after, 0)
	}
	from, known := t.known(position)
	if known && after != nil {
		return from, nil
	}
	if !t.turn(ctx) {
		return beginning{}, fmt.Errorf("begin to tail the log: %w", ctx.Err())
	}
	defer t.endTurn()
	head, err := t.store.Head(ctx)
	if err != nil {
		return beginning{}, fmt.Errorf("begin to tail the log: %w", err)
	}
	switch {
	case after == nil || *after == head.Position:
		from.spot = spot{head.Position, head.EventID}
	case *after > head.Position:
		return beginning{}, &eventstore.BeyondHeadError{Position: *after, Head: head.Position}
	}
	return from, nil
}

// startAfter is start for who has seen the event that the token stands for. When that is there no more, the subscription
// ends with a *eventstore.DivergedError, now or as soon as it looks. Of a token without an event it takes the position.
func (t *Tail) startAfter(ctx context.Context, after eventstore.Token) (beginning, error) {
	from, err := t.start(ctx, &after.Position)
	if after.EventID == uuid.Nil || from.id == after.EventID {
		return from, err
	}
	if beyond := (*eventstore.BeyondHeadError)(nil); errors.As(err, &beyond) {
		_ = t.store.Review(ctx) // who is told so finds the epoch raised
		return from, &eventstore.DivergedError{Position: beyond.Position, Reason: "the log was restored to before it"}
	}
	from.id, from.rewinds = after.EventID, -1 // it looks at once
	return from, err
}

// known tells whether the tail has come to a position, in the log's history as it is, and which event is there if it is
// kept.
func (t *Tail) known(position int64) (beginning, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	from := beginning{spot: spot{position: position}, rewinds: t.rewinds}
	if position > t.newest.position || (position > 0 && t.under != t.store.Mark(0)) {
		return from, false
	}
	if back := t.newest.position - position; back == 0 {
		from.spot = t.newest
	} else if back < int64(len(t.kept)) {
		from.spot = spotOf(&t.kept[int64(len(t.kept))-1-back])
	}
	return from, true
}

// turn waits until few enough subscribers read the log. False means that the context ended.
func (t *Tail) turn(ctx context.Context) bool {
	select {
	case t.turns <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (t *Tail) endTurn() { <-t.turns }

// follower goes along the log for one subscriber. It alternates between what the tail keeps and pages of the log; each way
// moves it over exactly the events that it offered to the filter, which is why there is neither hole nor repeat. Each
// step is from an event that is known by its id, so that it never goes over from one history of the log to another.
type follower struct {
	tail    *Tail
	filter  EventFilter
	at      spot // every event up to here was offered to the filter
	told    spot // the last that passed, or where it began
	page    int  // events of the next page of the log; 0 before the first
	rewinds int  // of the tail, when it last looked

	under eventstore.Mark // the epoch under which what it last returned was read
}

func (t *Tail) follow(filter EventFilter, from beginning) *follower {
	return &follower{tail: t, filter: filter, at: from.spot, told: from.spot, rewinds: from.rewinds}
}

// back has a follower take back what it returned since it was as it is to be again, and look at the log there.
func (f *follower) back(to follower) {
	f.at, f.told, f.rewinds = to.at, to.told, -1
}

// next returns the events that follow, at least one, and waits for them. None without an error means that the context
// ended.
func (f *follower) next(ctx context.Context) ([]eventstore.Event, error) {
	for ctx.Err() == nil {
		events, atEnd, err := f.look(ctx)
		if err != nil || len(events) > 0 {
			return events, err
		}
		if atEnd {
			f.wait(ctx)
		}
	}
	return nil, nil
}

// look returns those of the events that follow at once which pass the filter. AtEnd says that there are none to look at.
func (f *follower) look(ctx context.Context) (events []eventstore.Event, atEnd bool, err error) {
	events, scannedTo, live := f.tail.newer(f)
	if !live {
		events, err = f.read(ctx)
		return events, false, err
	}
	atEnd = scannedTo == f.at
	f.moveTo(scannedTo, events)
	return events, atEnd, nil
}

// moveTo notes how far the follower has looked, and what it takes along.
func (f *follower) moveTo(at spot, events []eventstore.Event) {
	f.at = at
	if len(events) > 0 {
		f.told = spotOf(&events[len(events)-1])
	}
}

// firstPage is how many events a follower reads first; as long as more follow, each page is twice as long.
const firstPage = 64

// read takes a page of the log when it is this follower's turn. The turn ends before anybody uses the page, however slow
// they are with it.
func (f *follower) read(ctx context.Context) ([]eventstore.Event, error) {
	t := f.tail
	if !t.turn(ctx) {
		return nil, nil
	}
	under := t.store.Mark(0)
	page, err := t.store.ReadLog(ctx, eventstore.LogQuery{
		After: f.at.position, Seen: f.at.id, Stream: f.filter.Stream, Types: f.filter.Types, Limit: f.limit(),
	})
	t.endTurn()
	if ctx.Err() != nil {
		return nil, nil
	}
	if err != nil && eventstore.Transient(err) {
		rest(ctx, t.cfg.PollMax)
		return nil, nil
	}
	if eventstore.Diverged(err) {
		return nil, f.lost()
	}
	if err != nil {
		return nil, fmt.Errorf("read the log after %d: %w", f.at.position, err)
	}
	if f.told.position == f.at.position {
		f.told.id = page.SeenID // of one who began at a bare position
	}
	f.under = under
	f.moveTo(spot{page.ScannedTo, page.ScannedID}, page.Events)
	f.adapt(page.Events)
	return page.Events, nil
}

// limit is how many events the next page may have.
func (f *follower) limit() int { return min(or(f.page, firstPage), f.tail.cfg.Page) }

// adapt lets the next page be longer when more events follow, and shorter when this one was too large.
func (f *follower) adapt(page []eventstore.Event) {
	bytes, most := 0, f.tail.cfg.PageBytes
	for i := range page {
		bytes += size(&page[i])
	}
	switch limit := f.limit(); {
	case bytes > most:
		f.page = max(1, len(page)*most/bytes)
	case len(page) == limit && 2*bytes <= most:
		f.page = 2 * limit
	}
}

// wait returns when the tail has come to an event that the filter takes, or when the context has ended. It moves the
// position over the events before that one: they were offered to the filter by the tail.
func (f *follower) wait(ctx context.Context) {
	t := f.tail
	if f.filter.Stream == "" && len(f.filter.Types) == 0 {
		if advanced := t.beyond(f); advanced != nil {
			select {
			case <-ctx.Done():
			case <-advanced:
			}
		}
		return
	}
	w := t.park(f)
	if w == nil {
		return
	}
	select {
	case f.at = <-w.from:
	case <-ctx.Done():
		t.unpark(w)
	}
}
