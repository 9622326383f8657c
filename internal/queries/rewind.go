package queries

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
)

// rewind goes back to the newest kept event that the log still holds, and has everybody who follows look at where they are.
func (t *Tail) rewind(ctx context.Context) error {
	t.mu.RLock()
	kept := t.kept // the events of the array do not change, and only Run drops any
	t.mu.RUnlock()
	var failed error
	lost := sort.Search(len(kept), func(i int) bool {
		holds, err := t.store.Holds(ctx, kept[i].Position, kept[i].ID)
		failed = errors.Join(failed, err)
		return !holds
	})
	if failed != nil {
		return fmt.Errorf("find where the log's histories part: %w", failed)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rewinds++
	for i := range t.kept[lost:] {
		t.bytes -= size(&t.kept[lost+i])
	}
	clear(t.kept[lost:])
	t.kept = t.kept[:lost:lost]
	if lost > 0 {
		t.moveTo(spotOf(&t.kept[lost-1]))
	} else {
		t.before, t.reading = uuid.Nil, false // it begins anew, at the head
		t.moveTo(spot{})
	}
	t.wakeAll()
	t.cfg.Logger.WarnContext(ctx, "the log has another history: who follows it is told, unless what they have seen is still in it",
		"after", t.newest.position)
	return nil
}

// lost has a follower go back to the last event that it was given, when the log does not hold the newest that it has looked
// at; when that is the same one, its subscriber has seen what is no more.
func (f *follower) lost() error {
	if f.told.position > 0 && (f.at == f.told || f.told.id == uuid.Nil) {
		return &eventstore.DivergedError{Position: f.told.position, Reason: "the log was restored to before it"}
	}
	f.at = f.told
	return nil
}
