package transport

import (
	"context"
	"sync"
)

// stream is what the transports and the producer of a subscription share.
type stream struct {
	lastEventID string

	mu        sync.Mutex
	positions []int64 // noted, and not taken by a response yet
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
// channel. The transport takes one for each response, in order, so that a producer which notes any notes one for each
// value. The position is the id of a server-sent event, and where a slow consumer learns that it can go on. Outside of
// a stream it does nothing.
func NotePosition(ctx context.Context, position int64) {
	if s, ok := ctx.Value(streamKey{}).(*stream); ok {
		s.mu.Lock()
		s.positions = append(s.positions, position)
		s.mu.Unlock()
	}
}

// take is the position of the next response.
func (s *stream) take() (position int64, noted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.positions) == 0 {
		return 0, false
	}
	position = s.positions[0]
	s.positions = append(s.positions[:0], s.positions[1:]...)
	return position, true
}
