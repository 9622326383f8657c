package queries

import (
	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
)

const (
	lookAtOnce = 512 // kept events that a subscriber passes over under the lock
	takeAtOnce = 64  // and takes along
)

// newer returns some of the kept events after where a follower is that pass its filter, and how far it looked: not beyond
// where it is when the tail has not come further. Live is false when some are no longer kept, or when the log may have
// another history than the follower or the tail saw; the log has them, and knows. The events are copies and few, so that a subscriber
// who is slow with them keeps no more than those in memory.
func (t *Tail) newer(f *follower) (events []eventstore.Event, scannedTo spot, live bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if f.rewinds != t.rewinds {
		f.rewinds = t.rewinds
		return nil, f.at, false
	}
	if f.at.position >= t.newest.position {
		return nil, f.at, true
	}
	if t.under != t.store.Mark(0) {
		return nil, f.at, false
	}
	first := t.newest.position - int64(len(t.kept)) + 1
	if f.at.position+1 < first {
		return nil, f.at, false
	}
	next := f.at.position + 1 - first
	previous := t.before
	if next > 0 {
		previous = t.kept[next-1].ID
	}
	if f.at.id != previous && f.at.id != uuid.Nil {
		return nil, f.at, false
	}
	fresh := t.kept[next:]
	for i := range fresh[:min(len(fresh), lookAtOnce)] {
		if f.filter.takes(&fresh[i]) {
			events = append(events, fresh[i])
		}
		if scannedTo = spotOf(&fresh[i]); len(events) == takeAtOnce {
			break
		}
	}
	f.under = t.under
	return events, scannedTo, true
}

// beyond returns what is closed when the tail comes further than the follower, or nil when it is already, or when the
// follower has to look where it is.
func (t *Tail) beyond(f *follower) <-chan struct{} {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.newest.position > f.at.position || t.rewinds != f.rewinds {
		return nil
	}
	return t.advanced
}

// parked are followers who wait, by what concerns them.
type parked map[string]map[*parking]struct{}

// parking is a follower who has seen all there is.
type parking struct {
	filter EventFilter
	at     spot
	from   chan spot // holds where to go on from, once
}

// keys are where a follower waits: with its stream, or else with each of its types.
func (t *Tail) keys(f EventFilter) (parked, []string) {
	if f.Stream != "" {
		return t.byStream, []string{f.Stream}
	}
	return t.byType, f.Types
}

// park lets a follower wait for an event that concerns it. Nil says that the tail has come further
// already, or that the follower has to look where it is.
func (t *Tail) park(f *follower) *parking {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.newest.position > f.at.position || t.rewinds != f.rewinds {
		return nil
	}
	w := &parking{filter: f.filter, at: f.at, from: make(chan spot, 1)}
	index, keys := t.keys(w.filter)
	for _, key := range keys {
		if index[key] == nil {
			index[key] = map[*parking]struct{}{}
		}
		index[key][w] = struct{}{}
	}
	return w
}

// unpark takes a follower who waits no longer out, if it was not woken.
func (t *Tail) unpark(w *parking) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(w)
}

func (t *Tail) remove(w *parking) {
	index, keys := t.keys(w.filter)
	for _, key := range keys {
		delete(index[key], w)
		if len(index[key]) == 0 {
			delete(index, key)
		}
	}
}

// wake lets those go on whom an event concerns. What lies between where they were and the event does not concern them, or
// they would have been woken by that. Previous is the event before. The caller holds the lock.
func (t *Tail) wake(e *eventstore.Event, previous spot) {
	for _, waiting := range []map[*parking]struct{}{t.byStream[e.Stream], t.byType[e.Type]} {
		for w := range waiting {
			if e.Position > w.at.position && w.filter.takes(e) {
				t.release(w, previous)
			}
		}
	}
}

// wakeAll lets all go on from where they were: the tail went over events without looking at them. The caller holds the
// lock.
func (t *Tail) wakeAll() {
	for _, index := range []parked{t.byStream, t.byType} {
		for _, waiting := range index {
			for w := range waiting {
				t.release(w, w.at)
			}
		}
	}
}

func (t *Tail) release(w *parking, from spot) {
	t.remove(w) // first, so that it is released once, wherever else it waits
	w.from <- from
}
