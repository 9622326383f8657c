package transport

import (
	"context"
	"sync"
	"time"
)

// timeout is a context that ends after a time, as context.WithTimeout makes one, but it starts its timer only when
// somebody asks for Done. An operation that never waits for anything, and there are many, so needs no timer, which
// would be a tenth of what it costs.
type timeout struct {
	context.Context // the parent
	at              time.Time

	mu    sync.Mutex
	timed context.Context // nil: nobody has asked for Done
	stop  context.CancelFunc
	ended bool
}

func withTimeout(parent context.Context, after time.Duration) *timeout {
	at := time.Now().Add(after)
	if earlier, ok := parent.Deadline(); ok && earlier.Before(at) {
		at = earlier
	}
	return &timeout{Context: parent, at: at}
}

// cancel ends the context.
func (t *timeout) cancel() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	if t.stop != nil {
		t.stop()
	}
}

// Deadline is when the context ends by itself.
func (t *timeout) Deadline() (time.Time, bool) { return t.at, true }

// Done is closed when the context has ended.
func (t *timeout) Done() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timed == nil {
		t.timed, t.stop = context.WithDeadline(t.Context, t.at)
		if t.ended {
			t.stop()
		}
	}
	return t.timed.Done()
}

// Err says why the context has ended, if it has.
func (t *timeout) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.timed != nil:
		return t.timed.Err()
	case t.ended:
		return context.Canceled
	case t.Context.Err() != nil:
		return t.Context.Err()
	case !time.Now().Before(t.at):
		return context.DeadlineExceeded
	}
	return nil
}

// Value looks in the context with the timer once there is one, by which package context knows its own and binds those
// that are derived without a goroutine for each.
func (t *timeout) Value(key any) any {
	t.mu.Lock()
	from := t.timed
	t.mu.Unlock()
	if from == nil {
		from = t.Context
	}
	return from.Value(key)
}
