package outbox

import "sync"

// inbox holds runs between the broker and the consumer. It never blocks the broker: what does not fit is dropped, and
// the consumer is told to read the log.
type inbox struct {
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

func newInbox(limit int) *inbox { return &inbox{limit: limit, wake: make(chan struct{}, 1)} }

func (in *inbox) put(head runHead, payload []byte) {
	in.mu.Lock()
	if in.bytes+len(payload) > in.limit && len(in.runs) > 0 {
		in.missed = true
	} else {
		in.runs = append(in.runs, received{head, payload})
		in.bytes += len(payload)
	}
	in.mu.Unlock()
	in.signal()
}

// miss says that something arrived which cannot be read.
func (in *inbox) miss() {
	in.mu.Lock()
	in.missed = true
	in.mu.Unlock()
	in.signal()
}

func (in *inbox) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// peek returns the oldest run without taking it.
func (in *inbox) peek() (received, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.runs) == 0 {
		return received{}, false
	}
	return in.runs[0], true
}

// drop takes the oldest run away.
func (in *inbox) drop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.bytes -= len(in.runs[0].payload)
	in.runs[0] = received{}
	in.runs = in.runs[1:]
}

// clear takes everything away.
func (in *inbox) clear() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.runs, in.bytes = nil, 0
}

// takeMissed tells whether something was dropped since the last call.
func (in *inbox) takeMissed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	missed := in.missed
	in.missed = false
	return missed
}
