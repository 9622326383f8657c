package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
)

// publicMoveAfter bounds how long the cursor of a contract's relay stays where it is while only private events come.
const publicMoveAfter = time.Second

// tell is to a relay with a contract what follow is to one without: it publishes the public events that come after at, and
// reads no others.
func (r *Relay) tell(ctx context.Context, at eventstore.Token, l *lease) error {
	types := r.cfg.Contract.Types()
	if len(types) == 0 { // a query without types would be one for all
		<-ctx.Done()
		return nil
	}
	poll := pace{least: r.cfg.PollMin, most: r.cfg.PollMax}
	seen, seenID, moved := at.Position, at.EventID, time.Now()
	for ctx.Err() == nil {
		_, next := r.store.Committed() // asked before the read, so that no commit falls between
		page, err := r.store.ReadLog(ctx, eventstore.LogQuery{After: seen, Seen: seenID, Types: types, Limit: MaxRunEvents})
		if err != nil {
			return err
		}
		var failed error
		seen, failed = r.tellPage(ctx, seen, page)
		switch seen {
		case page.ScannedTo:
			seenID = page.ScannedID
		case at.Position:
			seenID = at.EventID
		default:
			seenID = uuid.Nil // of an event before one that failed
		}
		public := len(page.Events) > 0
		if seen > at.Position && (public || seen-at.Position >= MaxRunEvents || time.Since(moved) >= publicMoveAfter) {
			if at, err = r.moveTo(ctx, l, at, seen, seenID); err != nil {
				return errors.Join(failed, err)
			}
			moved = time.Now()
			r.told(at.Position, len(page.Events))
		}
		if failed != nil {
			return failed
		}
		if seen < page.Head {
			poll.reset()
			continue
		}
		before := at
		if at, err = r.idle(ctx, at, next, &poll); err != nil {
			return err
		}
		if at.LogID != before.LogID || at.Epoch != before.Epoch {
			seen, seenID = at.Position, at.EventID // there may be another history beyond the cursor
		}
	}
	return nil
}

func (r *Relay) moveTo(ctx context.Context, l *lease, at eventstore.Token, position int64, id uuid.UUID) (eventstore.Token, error) {
	to := at
	to.Position, to.EventID = position, id // zero: whichever is there
	if l == nil {
		return to, nil
	}
	return r.record(ctx, l, at, to)
}

// tellPage publishes what is public of a page, and returns the position up to which that is done. Of an event that cannot
// be published the error is a *ContractError; all before it is done.
func (r *Relay) tellPage(ctx context.Context, after int64, page eventstore.Page) (upTo int64, err error) {
	upTo = page.ScannedTo
	var messages []*message.Message
	var events []*eventstore.Event // of each message
	var failed error
	for i := range page.Events {
		e := &page.Events[i]
		public, err := r.cfg.Contract.Messages(*e)
		if err != nil {
			upTo, failed = e.Position-1, err
			break
		}
		for _, msg := range public {
			messages, events = append(messages, msg), append(events, e)
		}
	}
	if len(messages) == 0 {
		return upTo, failed
	}
	err = r.insist(ctx, events[0].Position, events[len(events)-1].Position, messages...)
	if !errors.Is(err, ErrTooLarge) {
		if err != nil {
			return after, err
		}
		return upTo, failed
	}
	for i, msg := range messages {
		e := events[i]
		err := r.insist(ctx, e.Position, e.Position, msg)
		if errors.Is(err, ErrTooLarge) {
			return e.Position - 1, &ContractError{
				Type: msg.Metadata.Get(MetaType), EventType: e.Type, EventID: e.ID, Position: e.Position,
				Err: fmt.Errorf("%d bytes: %w", len(msg.Payload), err),
			}
		}
		if err != nil {
			return after, err
		}
	}
	return upTo, failed
}
