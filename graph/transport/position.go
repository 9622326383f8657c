package transport

import (
	"context"
	"sync"
)

// stream is what the transports and the producer of a subscription share.
type stream struct {
	lastEventID string

	mu    sync.Mutex
	noted []noted // and not taken by a response yet
}

// noted is where in the log a value stands.
type noted struct {
	position int64
	id       string // names it to a client that comes again
}

type streamKey struct{}

func withStream(ctx context.Context, s *stream) context.Context {
	return context.WithValue(ctx, streamKey{}, s)
}

// LastEventID is the id of the last event that the client of an event stream has seen, "" when it said none. It is for
// resolvers of subscriptions, which go on after it whatever their arguments say: a browser comes again with those it
// began with.
func LastEventID(ctx context.Context) string {
	if s, ok := ctx.Value(streamKey{}).(*stream); ok {
		return s.lastEventID
	}
	return ""
}

// NotePosition tells the position of the value that a subscription's producer is about to send on its unbuffered
// channel, and by what id LastEventID will name it. The transport takes one for each response, in order, so that a producer
// which notes any notes one for each value. The id is that of a server-sent event, and the position is where a slow
// consumer learns that it can go on. Outside of a stream it does nothing.
func NotePosition(ctx context.Context, position int64, id string) {
	if s, ok := ctx.Value(streamKey{}).(*stream); ok {
		s.mu.Lock()
		s.noted = append(s.noted, noted{position, id})
		s.mu.Unlock()
	}
}

// take is what was noted for the next response.
func (s *stream) take() (at noted, any bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.noted) == 0 {
		return noted{}, false
	}
	at = s.noted[0]
	s.noted = append(s.noted[:0], s.noted[1:]...)
	return at, true
}
