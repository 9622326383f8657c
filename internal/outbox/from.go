package outbox

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/headrace/headrace/internal/eventstore"
)

// From says where a checkpoint begins: FromBeginning, FromNow, or what FromAfter returns.
type From string

const (
	FromBeginning From = "beginning" // with the first event of the log; also what the empty string stands for
	FromNow       From = "now"       // with what is appended after the checkpoint was made
)

// FromAfter begins with the event after this position, which the log must have reached.
func FromAfter(position int64) From { return From("after " + strconv.FormatInt(position, 10)) }

// read takes it apart.
func (f From) read() (now bool, after int64, err error) {
	switch f {
	case "", FromBeginning:
		return false, 0, nil
	case FromNow:
		return true, 0, nil
	}
	digits, is := strings.CutPrefix(string(f), "after ")
	after, err = strconv.ParseInt(digits, 10, 64)
	if !is || err != nil || after < 0 {
		return false, 0, fmt.Errorf("from %q makes no sense: give %q, %q or %q", string(f), FromBeginning, FromNow, FromAfter(42))
	}
	return false, after, nil
}

// token is the checkpoint to begin with.
func (f From) token(ctx context.Context, store *eventstore.Store) (eventstore.Token, error) {
	now, after, err := f.read()
	if err != nil {
		return eventstore.Token{}, err
	}
	head, err := store.Head(ctx)
	if err != nil || now {
		return head, err
	}
	start := eventstore.Token{LogID: head.LogID, Epoch: head.Epoch, Position: after}
	if after == 0 {
		return start, nil
	}
	if after > head.Position {
		return start, fmt.Errorf("it is to begin after %d, and the log ends at %d", after, head.Position)
	}
	events, err := store.EventsAt(ctx, []int64{after})
	if err != nil {
		return start, err
	}
	if len(events) != 1 {
		return start, fmt.Errorf("it is to begin after %d, and there is no such event", after)
	}
	start.EventID = events[0].ID
	return start, nil
}
