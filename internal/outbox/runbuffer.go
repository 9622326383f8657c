package outbox

import "sync"

// runBuffer holds runs between the broker and the consumer. It never blocks the broker: what does not fit is dropped, and
// the consumer is told to read the log.
type runBuffer struct {
	limit int
	wake  chan struct{} // holds a token when something may have arrived or been missed

	mu     sync.Mutex
	runs   []received
	bytes  int
	missed bool
}

type received struct {
	head    runHead
	payload []byte
}

func newRunBuffer(limit int) *runBuffer {
	return &runBuffer{limit: limit, wake: make(chan struct{}, 1)}
}

func (r *runBuffer) put(head runHead, payload []byte) {
	r.mu.Lock()
	if r.bytes+len(payload) > r.limit && len(r.runs) > 0 {
		r.missed = true
	} else {
		r.runs = append(r.runs, received{head, payload})
		r.bytes += len(payload)
	}
	r.mu.Unlock()
	signal(r.wake)
}

// miss says that something arrived which cannot be read, or may have passed by.
func (r *runBuffer) miss() {
	r.mu.Lock()
	r.missed = true
	r.mu.Unlock()
	signal(r.wake)
}

// peek returns the oldest run without taking it.
func (r *runBuffer) peek() (received, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.runs) == 0 {
		return received{}, false
	}
	return r.runs[0], true
}

// drop takes the oldest run away.
func (r *runBuffer) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes -= len(r.runs[0].payload)
	r.runs[0] = received{}
	r.runs = r.runs[1:]
}

// clear takes everything away.
func (r *runBuffer) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runs, r.bytes = nil, 0
}

// takeMissed tells whether something was dropped since the last call.
func (r *runBuffer) takeMissed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	missed := r.missed
	r.missed = false
	return missed
}
