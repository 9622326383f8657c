package queries

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
)

// Freshness says how far the serving table of a view had come at one moment.
type Freshness struct {
	Projection string           // the view's stable name
	Checkpoint string           // of the generation that serves, which is also its table's name
	At         eventstore.Token // the table includes the log up to here; shards of it may be further
	Head       int64            // of the log
	Behind     time.Duration    // the age of the oldest event that the table does not include; 0 when it includes all
	Halted     bool             // it goes no further until an operator helps
	Replica    bool             // the table is a replica's; then Behind is what it can be at the most

	Parked int // streams whose events wait: what came of them is as it was before

	// ParkedChanges goes up whenever streams are parked, or what waits is handled: then rows change without an event that
	// the view comes to.
	ParkedChanges int64

	foremost int64     // of the shards' positions
	state    uuid.UUID // stands for all shards' positions when they are not the same
}

// EventsBehind is how many events of the log the table does not include, those that it passes over counted too.
func (f Freshness) EventsBehind() int64 { return max(0, f.Head-f.At.Position) }

// look is a look-up of checkpoints that several callers share.
type look struct {
	names map[string]bool
	done  chan struct{} // closed when found and err are set
	found map[string]Freshness
	err   error
}

// Freshness says how far views have come, in the order of their names. It asks the database, also about projections that
// run here, and never answers from a look that began before the call: what is read from the views afterwards includes at
// least the positions returned. Callers that come during a look share the next one, so that there is one at a time. An
// unknown name is an *UnknownProjectionError.
func (p *Progress) Freshness(ctx context.Context, names ...string) ([]Freshness, error) {
	l := p.join(names)
	select {
	case <-l.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("look up checkpoints: %w", ctx.Err())
	}
	if l.err != nil {
		return nil, l.err
	}
	out := make([]Freshness, len(names))
	for i, name := range names {
		f, known := l.found[name]
		if !known {
			return nil, &UnknownProjectionError{Projection: name}
		}
		out[i] = f
	}
	return out, nil
}

// join adds the names to the next look, and has looking begin if nobody looks.
func (p *Progress) join(names []string) *look {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next == nil {
		p.next = &look{names: map[string]bool{}, done: make(chan struct{})}
	}
	for _, name := range names {
		p.next.names[name] = true
	}
	if !p.looking {
		p.looking = true
		go p.look()
	}
	return p.next
}

// look looks up until nobody has joined a next look.
func (p *Progress) look() {
	for {
		p.mu.Lock()
		l := p.next
		p.next, p.looking = nil, l != nil
		p.mu.Unlock()
		if l == nil {
			return
		}
		names, started := slices.Collect(maps.Keys(l.names)), time.Now()
		found, err := p.lookUp(names)
		l.err, l.found = err, make(map[string]Freshness, len(found))
		for _, rows := range views(found) {
			l.found[rows[0].Name] = freshness(rows)
		}
		if err == nil {
			p.learn(found, names, started) // first, so that who is answered finds nothing older known here
		}
		close(l.done)
	}
}
