package eventstore

import (
	"sync"

	"github.com/google/uuid"
)

// spot names an event by its position, in an epoch.
type spot struct {
	epoch    int32
	position int64 // 0: none
	id       uuid.UUID
}

// goneFrom tells whether a log of this epoch, which has another event at the position or none, has lost the spot's. A log of
// another epoch has said so already.
func (s spot) goneFrom(epoch int32, there uuid.UUID) bool {
	return s.position > 0 && s.epoch == epoch && s.id != there
}

// remembered is how many events a memory holds, by the last digits of their positions.
const remembered = 4096

// memory is which events the log of the present epoch is known to have. The newest of them is that of the head when it was last
// looked at, or one that this process appended since: when that is gone, what else the process holds in memory may be. It
// does not count events that were only read, since a reading does not tell of which server's history they are while one
// server takes the place of another. It is safe for concurrent use.
type memory struct {
	mu     sync.Mutex
	epoch  int32
	newest spot
	events map[int64]Token // by position modulo remembered
}

// begin forgets what was known of an older epoch.
func (m *memory) begin(epoch int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch, m.newest, m.events = epoch, spot{}, make(map[int64]Token)
}

// last is the newest event.
func (m *memory) last() spot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.newest
}

// sawHead takes over the newest event of the log, as it was in an epoch.
func (m *memory) sawHead(epoch int32, head spot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch == m.epoch && head.position > m.newest.position {
		m.newest = spot{epoch, head.position, head.id}
	}
}

// appended takes over what this process has committed.
func (m *memory) appended(t Token) {
	m.keep(t)
	m.sawHead(t.Epoch, spot{position: t.Position, id: t.EventID})
}

// keep takes over the event of a token that was found in the log.
func (m *memory) keep(t Token) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.Epoch == m.epoch && t.Position > 0 {
		m.events[t.Position%remembered] = t
	}
}

func (m *memory) holds(t Token) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, is := m.events[t.Position%remembered]
	return is && known == t
}
