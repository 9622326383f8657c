package queries

import (
	"context"

	"github.com/headrace/headrace/internal/eventstore"
)

// lastChangeWindow is how many positions are looked at for the last change of a view.
const lastChangeWindow = 5_000

// calm says that a view shows the same at all positions from since to through.
type calm struct {
	since   eventstore.Token
	through int64
}

// LastChange returns the point of the log from which on a view has shown what it shows at a moment: that of the last event
// that it takes, which is often far before its checkpoint, since that moves over all events. When equal points are
// returned, whenever and by whichever process, the view showed the same. The point may be later than the true one, and is
// the checkpoint itself when the last change lies too far back to be looked for, more than 5,000 positions after the
// last that was asked for here. While shards of a view stand at different positions and there is something of it between them,
// the point is one that stands for all their positions, and is that of no event. A view that the feed was not made for is an *UnknownProjectionError.
func (f *Feed) LastChange(ctx context.Context, at Freshness) (eventstore.Token, error) {
	v, known := f.views[at.Projection]
	if !known {
		return eventstore.Token{}, &UnknownProjectionError{Projection: at.Projection}
	}
	if at.foremost > at.At.Position {
		if settled, err := f.settled(ctx, v, at); err != nil || !settled {
			return eventstore.Token{LogID: at.At.LogID, Epoch: at.At.Epoch, Position: at.foremost, EventID: at.state}, err
		}
	}
	f.mu.Lock()
	before, kept := f.calm[at.Checkpoint]
	f.mu.Unlock()
	now := calm{since: at.At, through: at.At.Position}
	sameHistory := before.since.LogID == at.At.LogID && before.since.Epoch == at.At.Epoch
	if kept && sameHistory && before.through <= now.through && now.through-before.through <= lastChangeWindow {
		changed, found, err := f.store.LastOf(ctx, v.projection.Types, before.through, now.through)
		if err != nil {
			return eventstore.Token{}, err
		}
		if !found {
			now.since = before.since
		} else {
			now.since.Position, now.since.EventID = changed.Position, changed.ID
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if other := f.calm[at.Checkpoint]; other.since.Epoch != now.since.Epoch || other.through <= now.through {
		f.calm[at.Checkpoint] = now
	}
	return now.since, nil
}

// settled tells whether the shards that are further than the least have nothing of the view there that it has not: then it
// shows what it shows at the least.
func (f *Feed) settled(ctx context.Context, v *watched, at Freshness) (bool, error) {
	if at.foremost-at.At.Position > lastChangeWindow {
		return false, nil
	}
	_, found, err := f.store.LastOf(ctx, v.projection.Types, at.At.Position, at.foremost)
	return !found, err
}
