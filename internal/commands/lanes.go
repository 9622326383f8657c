package commands

import (
	"context"
	"sync"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
)

// lanes lets one goroutine at a time work on a stream, in the order of arrival. Without it, the commands of this process
// on a hot stream would all decide on the same version, and all but one of each round would have worked for nothing.
type lanes struct {
	mu      sync.Mutex
	streams map[string]*lane // only those with somebody in or before them
	limit   int
}

type lane struct {
	turn  chan struct{} // holds a value while somebody is in the lane
	users int           // in the lane and waiting for it; guarded by lanes.mu
}

func newLanes(limit int) *lanes {
	return &lanes{streams: make(map[string]*lane), limit: limit}
}

// enter waits for the stream's turn. Whoever got it must call leave.
func (l *lanes) enter(ctx context.Context, stream string) (leave func(), err error) {
	l.mu.Lock()
	ln := l.streams[stream]
	if ln == nil {
		ln = &lane{turn: make(chan struct{}, 1)}
		l.streams[stream] = ln
	}
	if ln.users >= l.limit {
		l.mu.Unlock()
		return nil, &eventstore.OverloadedError{Queued: l.limit, RetryAfter: time.Second}
	}
	ln.users++
	l.mu.Unlock()

	select {
	case ln.turn <- struct{}{}:
		return func() {
			<-ln.turn
			l.forget(stream, ln)
		}, nil
	case <-ctx.Done():
		l.forget(stream, ln)
		return nil, ctx.Err()
	}
}

func (l *lanes) forget(stream string, ln *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln.users--; ln.users == 0 {
		delete(l.streams, stream)
	}
}
