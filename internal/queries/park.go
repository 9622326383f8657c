package queries

import "github.com/headrace/headrace/internal/eventstore"

const (
	lookAtOnce = 512 // kept events that a subscriber passes over under the lock
	takeAtOnce = 64  // and takes along
)

// newer returns some of the kept events after a position that pass the filter, and how far it looked: not beyond the
// position when the tail has not come further. Live is false when some are no longer kept; the log has them. The
// events are copies and few, so that a subscriber who is slow with them keeps no more than those in memory.
func (t *Tail) newer(position int64, f EventFilter) (events []eventstore.Event, scannedTo int64, live bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if position >= t.position {
		return nil, position, true
	}
	first := t.position - int64(len(t.kept)) + 1
	if position+1 < first {
		return nil, position, false
	}
	fresh := t.kept[position+1-first:]
	for i := range fresh[:min(len(fresh), lookAtOnce)] {
		if f.takes(&fresh[i]) {
			events = append(events, fresh[i])
		}
		if scannedTo = fresh[i].Position; len(events) == takeAtOnce {
			break
		}
	}
	return events, scannedTo, true
}

// beyond returns what is closed when the tail comes further, or nil when it is beyond the position already.
func (t *Tail) beyond(position int64) <-chan struct{} {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.position > position {
		return nil
	}
	return t.advanced
}

// parked are followers who wait, by what concerns them.
type parked map[string]map[*parking]struct{}

// parking is a follower who has seen all there is.
type parking struct {
	filter   EventFilter
	position int64
	from     chan int64 // holds where to go on from, once
}

// keys are where a follower waits: with its stream, or else with each of its types.
func (t *Tail) keys(f EventFilter) (parked, []string) {
	if f.Stream != "" {
		return t.byStream, []string{f.Stream}
	}
	return t.byType, f.Types
}

// park lets a follower wait for an event that concerns it. Nil says that the tail has come further already.
func (t *Tail) park(f *follower) *parking {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.position > f.position {
		return nil
	}
	w := &parking{filter: f.filter, position: f.position, from: make(chan int64, 1)}
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
// they would have been woken by that. The caller holds the lock.
func (t *Tail) wake(e *eventstore.Event) {
	for _, waiting := range []map[*parking]struct{}{t.byStream[e.Stream], t.byType[e.Type]} {
		for w := range waiting {
			if e.Position > w.position && w.filter.takes(e) {
				t.release(w, e.Position-1)
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
				t.release(w, w.position)
			}
		}
	}
}

func (t *Tail) release(w *parking, from int64) {
	t.remove(w) // first, so that it is released once, wherever else it waits
	w.from <- from
}
