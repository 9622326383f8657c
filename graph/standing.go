package graph

import (
	"context"
	"errors"

	"github.com/headrace/headrace/internal/eventstore"
)

// standing is how far along the log the newest is that a subscriber has, and under which epoch it was read. While the epoch
// is the log's, nobody needs to look whether it is still there.
type standing struct {
	root *root
	has  eventstore.Mark
}

// stands is a subscriber's standing who has nothing yet. It is taken before anything is read or checked for the subscriber,
// so that it never names a later epoch than what is read.
func (r *root) stands() standing { return standing{root: r, has: r.Store.Mark(0)} }

// take notes what the subscriber is about to get: up to a position, as it was read under an epoch. When that is another than
// the epoch of what it has, and the log does not hold the older of both any more, it is a *eventstore.DivergedError: two
// histories must not be mixed.
func (s *standing) take(ctx context.Context, under int32, position int64) error {
	switch {
	case under > s.has.Epoch:
		if err := s.check(ctx, s.has); err != nil {
			return err
		}
		s.has.Epoch = under
	case under < s.has.Epoch:
		if err := s.check(ctx, eventstore.Mark{Position: position, Epoch: under, Log: s.has.Log}); err != nil {
			return err
		}
	}
	s.has.Position = max(s.has.Position, position)
	return nil
}

// check asks the log whether it still holds what a mark stands for, again while the database cannot be reached.
func (s *standing) check(ctx context.Context, m eventstore.Mark) error {
	err := s.root.sharing.Do(ctx, func(ctx context.Context) error { return s.root.Store.CheckMark(ctx, m) })
	if beyond, ok := errors.AsType[*eventstore.BeyondHeadError](err); ok {
		return &eventstore.DivergedError{Position: beyond.Position, Reason: "the log was restored to before it"}
	}
	return err
}

// mark is that of a position which the subscriber has come to.
func (s *standing) mark(position int64) eventstore.Mark {
	return eventstore.Mark{Position: position, Epoch: s.has.Epoch, Log: s.has.Log}
}

// inOneEpoch runs a reading, and again if the epoch of the log was raised meanwhile: what it has read last is of one history,
// under the epoch returned.
func (r *root) inOneEpoch(read func() error) (under int32, err error) {
	for {
		under, _ = r.Store.Epoch()
		err = read()
		if now, _ := r.Store.Epoch(); err != nil || now == under {
			return under, err
		}
	}
}
