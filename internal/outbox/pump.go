package outbox

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// pump works on what is due in a table: it claims as much as it has hands for, works on each beside the others, and writes
// down how that ended, as many at a time as there are. Any number of processes may have one on the same table.
type pump[T any] struct {
	what             string // for the log, such as "outbox messages"
	workers          int
	pollMin, pollMax time.Duration
	grace            time.Duration // for what is in hand when the pump is to stop
	log              *slog.Logger

	// next is a channel that is closed when this process may have made something due.
	next func() <-chan struct{}
	// due tells in how many seconds the next one is. It fails when there is none.
	due    func(ctx context.Context) (seconds float64, err error)
	claim  func(ctx context.Context, limit int) ([]T, error)
	work   func(ctx context.Context, item T) T // the context ends when the item is cut off
	settle func(ctx context.Context, done []T) error
}

// noOutcome is why a message is dead that is due again after its last attempt: whoever made it did not live to tell.
const noOutcome = "no outcome of the last attempt was recorded, as when a message ends its process"

// claimPatience is how long a claim may take when what is in hand is cut off. One that is broken off may have been made all
// the same, and what it claimed is then nobody's until it is due again.
const claimPatience = 2 * time.Second

// run works until ctx ends, waits for what is in hand, cuts off what takes longer than the grace, and writes down how all
// that ended.
func (p *pump[T]) run(ctx context.Context) {
	working, cutOff := outlast(ctx, p.grace)
	defer cutOff()
	claiming, abandon := outlast(ctx, p.grace+claimPatience)
	defer abandon()
	finished := make(chan T, p.workers)
	free := make(chan struct{}, p.workers)
	var workers, recorder sync.WaitGroup
	recorder.Go(func() { p.record(context.WithoutCancel(ctx), finished, free) })
	poll := pace{least: p.pollMin, most: p.pollMax}
	late := pace{least: p.pollMin, most: p.pollMax}
	retry := pace{least: 50 * time.Millisecond, most: 5 * time.Second}
	for range p.workers {
		free <- struct{}{}
	}
	for ctx.Err() == nil {
		slots := takeAll(ctx, free)
		if slots == 0 {
			break
		}
		next := p.next() // asked before the claim, so that nothing becomes due in between
		items, err := p.claim(claiming, slots)
		for range slots - len(items) {
			free <- struct{}{}
		}
		for _, item := range items {
			workers.Go(func() { finished <- p.work(working, item) })
		}
		switch {
		case err != nil:
			if ctx.Err() == nil {
				p.log.Warn("claiming failed", "what", p.what, "error", err)
			}
			retry.sleep(ctx)
		case len(items) > 0:
			retry.reset()
			poll.reset()
			late.reset()
		default:
			p.idle(ctx, next, &poll, &late)
		}
	}
	workers.Wait()
	close(finished)
	recorder.Wait()
}

// takeAll waits for one token and takes what else is there.
func takeAll(ctx context.Context, tokens <-chan struct{}) int {
	select {
	case <-tokens:
	case <-ctx.Done():
		return 0
	}
	for n := 1; ; n++ {
		select {
		case <-tokens:
		default:
			return n
		}
	}
}

// idle waits until something may be due: made so by this process, by the time, or, for what others made so, the poll. What
// is late already, and was not to be had, became due just now or is locked by somebody: it is looked for ever more seldom.
func (p *pump[T]) idle(ctx context.Context, next <-chan struct{}, poll, late *pace) {
	wait := poll.step()
	due, err := p.due(ctx)
	switch {
	case err != nil:
	case due <= 0:
		wait = min(wait, late.step())
	case due < wait.Seconds():
		wait = max(time.Duration(due*float64(time.Second)), time.Millisecond)
		fallthrough
	default:
		late.reset()
	}
	if wait <= p.pollMin {
		pause(ctx, wait)
		return
	}
	if !pause(ctx, p.pollMin) { // under a load of signals with nothing due, look no more often than this
		return
	}
	timer := time.NewTimer(wait - p.pollMin)
	defer timer.Stop()
	select {
	case <-next:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// record writes down outcomes, as many at a time as there are. When that fails the work is done again: at least once.
func (p *pump[T]) record(ctx context.Context, finished <-chan T, free chan<- struct{}) {
	for item := range finished {
		batch := []T{item}
		for more := true; more && len(batch) < p.workers; {
			select {
			case item, more = <-finished:
				if more {
					batch = append(batch, item)
				}
			default:
				more = false
			}
		}
		if err := p.settle(ctx, batch); err != nil {
			p.log.Warn("recording outcomes failed; the work is done again", "what", p.what, "error", err)
		}
		for range batch {
			free <- struct{}{}
		}
	}
}

// backOff is the time from a failed attempt to the next, which doubles from least to most, with an eighth more or less by
// chance.
func backOff(attempt int, least, most time.Duration) time.Duration {
	wait := most
	if attempt < 20 {
		wait = min(wait, least<<(attempt-1))
	}
	return wait*3/4 + jitter(wait/2)/2
}
