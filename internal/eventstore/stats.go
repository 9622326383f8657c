package eventstore

import (
	"errors"
	"sync/atomic"
)

// Stats are what a Store did since it was opened, and what waits in it now.
type Stats struct {
	Batches   int64 // transactions that judged requests, whatever the verdicts
	Events    int64 // events written
	Conflicts int64 // requests refused since a stream was not at the expected version
	Queued    int   // requests that wait for a batch
}

type counts struct{ batches, events, conflicts atomic.Int64 }

// Stats returns the counts. It may be called by any goroutine.
func (s *Store) Stats() Stats {
	s.appender.mu.Lock()
	queued := len(s.appender.queue)
	s.appender.mu.Unlock()
	return Stats{
		Batches: s.counts.batches.Load(), Events: s.counts.events.Load(), Conflicts: s.counts.conflicts.Load(), Queued: queued,
	}
}

// count takes note of a batch that was answered.
func (s *Store) count(batch []*pending, answers []answer) {
	s.counts.batches.Add(1)
	for i, p := range batch {
		var conflict *ConflictError
		switch got := answers[i]; {
		case got.err == nil && !got.receipt.Duplicate:
			s.counts.events.Add(int64(len(p.events)))
		case errors.As(got.err, &conflict):
			s.counts.conflicts.Add(1)
		}
	}
}
