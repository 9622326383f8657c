package outbox

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
)

// gather returns what comes next, as much as there is and a batch may hold, without waiting for more. It decides by
// position: what was seen is dropped, what follows is taken, and what is missing is read from the log.
func (t *tenure) gather(ctx context.Context) (portion, error) {
	batch := portion{to: t.seen, toID: t.seenID}
	if t.rest != nil {
		rest := *t.rest
		t.rest = nil
		batch = t.cut(rest) // which sets it again when there is more
		if t.rest != nil || len(batch.events) >= t.c.cfg.Batch {
			return batch, nil
		}
	}
	for len(batch.events) < t.c.cfg.Batch {
		run, any := t.runs.peek()
		if !any {
			break
		}
		if run.head.last() <= batch.to || run.head.logID != t.at.LogID || run.head.epoch != t.at.Epoch {
			t.runs.drop() // seen before, or of another history; the probe finds out when it is ours that changed
			continue
		}
		if run.head.first > batch.to+1 {
			if batch.to > t.seen {
				return batch, nil // what is here goes first
			}
			return t.fill(ctx, run.head.first)
		}
		t.runs.drop()
		t.add(&batch, run)
	}
	if batch.to > t.seen || !t.behind {
		return t.cut(batch), nil
	}
	return t.read(ctx)
}

// add appends the part of a run that is new. A run that cannot be read, or that continues another history, is left out
// and read from the log.
func (t *tenure) add(batch *portion, r received) {
	run, lastID, err := decodeRun(r.payload, t.want)
	unknown := batch.toID == uuid.Nil
	if err != nil || (run.First == batch.to+1 && !unknown && run.Prev != batch.toID) {
		t.behind = true
		return
	}
	events := run.Events
	for len(events) > 0 && events[0].Position <= batch.to {
		events = events[1:]
	}
	batch.events = append(batch.events, t.ofShard(events)...)
	batch.to, batch.toID = r.head.last(), lastID
}

// ofShard keeps the events of this shard. The slice is this tenure's own.
func (t *tenure) ofShard(events []eventstore.Event) []eventstore.Event {
	if t.c.sub.Shards < 2 {
		return events
	}
	return slices.DeleteFunc(events, func(e eventstore.Event) bool {
		return eventstore.Shard(e.Stream, t.c.sub.Shards) != t.c.sub.Shard
	})
}

// cut keeps what a batch may hold; the rest waits for the next one.
func (t *tenure) cut(p portion) portion {
	if len(p.events) <= t.c.cfg.Batch {
		return p
	}
	rest := p
	rest.events = p.events[t.c.cfg.Batch:]
	t.rest = &rest
	last := p.events[t.c.cfg.Batch-1]
	return portion{events: slices.Clip(p.events[:t.c.cfg.Batch]), to: last.Position, toID: last.ID}
}

// fill reads the gap before first. A run that announces what the log does not have is dropped.
func (t *tenure) fill(ctx context.Context, first int64) (portion, error) {
	t.behind = true
	batch, err := t.read(ctx)
	if err == nil && !t.behind && batch.to < first-1 {
		if t.stale {
			t.behind = true // the page was read before the run came
		} else {
			t.runs.drop()
		}
	}
	return batch, err
}

// read reads the next page of the log and has the one after it read meanwhile.
func (t *tenure) read(ctx context.Context) (portion, error) {
	var page eventstore.Page
	var err error
	t.stale = t.prefetch != nil && t.prefetch.after == t.seen
	if t.stale {
		page, err = t.prefetch.wait()
	} else {
		page, err = t.page(ctx, t.seen, t.seenID)
	}
	t.prefetch = nil
	if err != nil {
		return portion{}, err
	}
	t.behind = page.ScannedTo < page.Head
	if t.behind {
		t.prefetch = &prefetch{after: page.ScannedTo, afterID: page.ScannedID, done: make(chan struct{})}
		go t.prefetch.run(ctx, t)
	}
	if page.ScannedTo > t.seen {
		t.poll.reset()
	}
	return portion{events: page.Events, to: page.ScannedTo, toID: page.ScannedID}, nil
}

func (t *tenure) page(ctx context.Context, after int64, id uuid.UUID) (eventstore.Page, error) {
	return t.c.store.ReadLog(ctx, eventstore.LogQuery{
		After: after, Seen: id, Types: t.c.sub.Types, Shard: t.c.sub.Shard, Shards: t.c.sub.Shards, Limit: t.c.cfg.Batch,
	})
}

// prefetch is a read of the log on its way.
type prefetch struct {
	after   int64
	afterID uuid.UUID
	done    chan struct{}
	page    eventstore.Page
	err     error
}

func (p *prefetch) run(ctx context.Context, t *tenure) {
	defer close(p.done)
	p.page, p.err = t.page(ctx, p.after, p.afterID)
}

func (p *prefetch) wait() (eventstore.Page, error) {
	<-p.done
	return p.page, p.err
}
