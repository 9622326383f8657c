package transport

import (
	"sync"
	"time"
)

// message is one that waits to be written, and the operation that it belongs to, if any.
type message struct {
	operation *operation
	text      []byte
	last      bool // of its operation, and short: it has a place of its own in the queue
}

// outcome is what became of a message that was to be queued.
type outcome int

const (
	queued outcome = iota
	slow           // there was no room in time
	gone           // the connection ends
)

// queue is what one connection has to write, bounded in messages and bytes. Whoever finds it full waits in line, for a
// bounded time, and holds no more than its one message. The last message of an operation always has room: there is one
// for each operation.
type queue struct {
	maxMessages, maxBytes int

	mu       sync.Mutex
	messages []message
	count    int // of those that are not last
	bytes    int // of these
	line     []*waiting
	closed   bool
	ready    chan struct{} // holds a value when there is something to do for the writer
}

type waiting struct {
	message message
	outcome chan outcome // has room
}

func newQueue(cfg *Config) *queue {
	return &queue{maxMessages: cfg.QueueMessages, maxBytes: cfg.QueueBytes, ready: make(chan struct{}, 1)}
}

// put waits for room as long as patience lasts, or until given up.
func (q *queue) put(m message, patience time.Duration, givenUp <-chan struct{}) outcome {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return gone
	}
	if len(q.line) == 0 && q.fits(m) {
		q.add(m)
		q.mu.Unlock()
		return queued
	}
	w := &waiting{message: m, outcome: make(chan outcome, 1)}
	q.line = append(q.line, w)
	q.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case outcome := <-w.outcome:
		return outcome
	case <-givenUp:
		return q.leave(w, gone)
	case <-timer.C:
		return q.leave(w, slow)
	}
}

// leave takes one out of the line, unless its turn has just come.
func (q *queue) leave(w *waiting, why outcome) outcome {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case outcome := <-w.outcome:
		return outcome
	default:
	}
	for i := range q.line {
		if q.line[i] == w {
			q.line = append(q.line[:i], q.line[i+1:]...)
			break
		}
	}
	q.letIn() // a shorter one behind it may fit
	return why
}

// putLast queues the last message of an operation at once.
func (q *queue) putLast(m message) {
	m.last = true
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.add(m)
	}
}

// fits lets one message in however long it is: else it could never be sent. The caller holds the lock.
func (q *queue) fits(m message) bool {
	return q.count < q.maxMessages && (q.count == 0 || q.bytes+len(m.text) <= q.maxBytes)
}

// add is called with the lock held.
func (q *queue) add(m message) {
	if !m.last {
		q.count++
		q.bytes += len(m.text)
	}
	q.messages = append(q.messages, m)
	q.wake()
}

func (q *queue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take returns the next message to write. Without one it says whether the connection is to end.
func (q *queue) take() (m message, ok, ends bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.messages) == 0 {
		return message{}, false, q.closed
	}
	m = q.messages[0]
	q.messages[0] = message{}
	q.messages = q.messages[1:]
	if len(q.messages) == 0 {
		q.messages = nil
	}
	if !m.last {
		q.count--
		q.bytes -= len(m.text)
	}
	q.letIn()
	return m, true, false
}

// letIn admits those in the line for whom there is room, in their order. The caller holds the lock.
func (q *queue) letIn() {
	for len(q.line) > 0 && q.fits(q.line[0].message) {
		q.add(q.line[0].message)
		q.line[0].outcome <- queued
		q.line = q.line[1:]
	}
}

// close lets nothing in any more. What is queued is still written, unless it is to be dropped.
func (q *queue) close(drop bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, w := range q.line {
		w.outcome <- gone
	}
	q.line = nil
	if drop {
		q.messages, q.count, q.bytes = nil, 0, 0
	}
	q.wake()
}
