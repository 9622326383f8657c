package queries

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
)

// Degradation says why an object is shown as it was before an event and not as it is: its view could not handle the event,
// and that and what follows it in the object's stream wait. It is fit for those outside: what went wrong is for operators.
type Degradation struct {
	Position int64     // of the first event that waits
	Since    time.Time // when it began to wait
}

// DegradationCode says in one word why an object is degraded.
type DegradationCode string

// EventParked is the code of an object whose events wait.
const EventParked DegradationCode = "EVENT_PARKED"

// Code is always EventParked.
func (*Degradation) Code() DegradationCode { return EventParked }

// Message says it in a sentence.
func (*Degradation) Message() string {
	return "an event of this object could not be processed; the object is shown as it was before, until that is mended"
}

// ParkedError says that there is nothing to show of an object since its events wait from the first one on.
type ParkedError struct {
	Projection string
	Degradation
}

func (e *ParkedError) Error() string {
	return fmt.Sprintf("projection %s shows nothing of the object: its events wait from position %d on", e.Projection, e.Position)
}

// Degradable is embedded in the row of a view that may be parked, so that it can say that it is degraded. It is no column.
type Degradable struct {
	Degradation *Degradation `db:"-"` // nil: it is not
}

// Degraded reports whether the row lacks events that its view has passed.
func (d Degradable) Degraded() bool { return d.Degradation != nil }

// Why is the row's Degradation.
func (d Degradable) Why() *Degradation { return d.Degradation }

func (d *Degradable) degrade(why *Degradation) { d.Degradation = why }

// ParkedStream is a stream whose events wait for a view.
type ParkedStream struct {
	Stream   string
	Position int64     // of the first event that waits
	Since    time.Time // when it began to wait
}

// ParkedStreams are those of one shard of a checkpoint, as its owner knows them.
type ParkedStreams struct {
	Changes int64 // goes up with each change
	Moved   int64 // the checkpoint's position when they last changed
	Streams []ParkedStream
}

// parkedShard is what is known of a shard's parked streams.
type parkedShard struct {
	changes, moved int64
	streams        map[string]*Degradation
	local          time.Time // when Parked said so; zero: only looked up
}

// Parked says which streams wait for a shard of a checkpoint that this process owns. It is called before Advance is for the
// position that goes with it, so that nobody who waited reads a row without knowing. It does not block.
func (p *Progress) Parked(checkpoint string, shard int, now ParkedStreams) {
	s := parkedShard{changes: now.Changes, moved: now.Moved, streams: make(map[string]*Degradation, len(now.Streams)), local: time.Now()}
	for _, stream := range now.Streams {
		s.streams[stream.Stream] = &Degradation{Position: stream.Position, Since: stream.Since}
	}
	p.mu.Lock()
	keys := p.park(checkpoint, shard, s)
	tell := p.tellParked(checkpoint, keys)
	p.mu.Unlock()
	tell()
}

// park takes over what is known of a shard, and returns the streams that wait otherwise than before. The caller holds the
// lock.
func (p *Progress) park(checkpoint string, shard int, now parkedShard) (keys []string) {
	before := p.parked[checkpoint][shard]
	for stream, d := range now.streams {
		if old := before.streams[stream]; old == nil || *old != *d {
			keys = append(keys, stream)
		}
	}
	for stream := range before.streams {
		if now.streams[stream] == nil {
			keys = append(keys, stream)
		}
	}
	if p.parked[checkpoint] == nil {
		p.parked[checkpoint] = map[int]parkedShard{}
	}
	p.parked[checkpoint][shard] = now
	p.parkedNow.Add(int64(len(now.streams) - len(before.streams)))
	return keys
}

// tellParked makes the function that tells the feeds, outside of the lock, that rows of a checkpoint's streams changed
// without an event. The caller holds the lock.
func (p *Progress) tellParked(checkpoint string, keys []string) func() {
	if len(keys) == 0 {
		return func() {}
	}
	p.edition.Add(1)
	var views []string
	for name, v := range p.views {
		if v.checkpoint == checkpoint {
			views = append(views, name)
		}
	}
	told := p.onParked
	return func() {
		for _, view := range views {
			for _, f := range told {
				f(view, keys)
			}
		}
	}
}

// AnyDegraded reports whether anything is parked at all, as far as known here.
func (p *Progress) AnyDegraded() bool { return p.parkedNow.Load() > 0 }

// Degraded says why an object of the generation that serves a view is degraded; nil: it is not. It knows what this process
// did itself at once, what others did as soon as it has waited for a position of theirs or looked at the view, and else
// within ProgressConfig.FollowPoll where the view is followed. It asks no database, and costs nothing while nothing
// is parked.
func (p *Progress) Degraded(projection, stream string) *Degradation {
	if !p.AnyDegraded() {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	v, known := p.views[projection]
	if !known {
		return nil
	}
	for _, shard := range p.parked[v.checkpoint] {
		if d := shard.streams[stream]; d != nil {
			return d
		}
	}
	return nil
}

// Edition is a name for what is shown of a view between two changes of parked streams, for Shared: what was read before
// such a change is no answer after it, though the view is at the same position.
func (p *Progress) Edition(projection string) string {
	if n := p.edition.Load(); n > 0 {
		return fmt.Sprint(projection, "#", n)
	}
	return projection
}

// Mark returns a row of a view as it is to be shown: as it is, or when its stream waits, a copy that says why it is degraded. A
// row says that by an embedded Degradable.
func Mark[R any](p *Progress, projection, stream string, row *R) *R {
	why := p.Degraded(projection, stream)
	if why == nil {
		return row
	}
	marked := *row
	if d, ok := any(&marked).(interface{ degrade(*Degradation) }); ok {
		d.degrade(why)
	}
	return &marked
}

// KeyOf returns the function that gives the key of a view's row, which is its stream. It is nil for a view whose rows are not
// those of one stream each: they cannot say which events they lack.
func (v View[R]) KeyOf() func(*R) string {
	shape, err := shapeOf[R]()
	if err != nil || v.Key != nil {
		return nil
	}
	return shape.keyOf
}

// learnParked reads the parked streams of those checkpoints where they are not as they were when last looked at.
func (p *Progress) learnParked(ctx context.Context, found []serving) error {
	var changed []string
	p.mu.Lock()
	for _, s := range found {
		if s.ParkedChanges != p.parked[s.Checkpoint][s.Shard].changes {
			changed = append(changed, s.Checkpoint)
		}
	}
	p.mu.Unlock()
	if len(changed) == 0 {
		return nil
	}
	started := time.Now()
	rows, err := p.pool.Query(ctx, sqlParked, changed)
	if err != nil {
		return fmt.Errorf("look up parked streams: %w", err)
	}
	type place struct {
		checkpoint string
		shard      int
	}
	read := map[place]parkedShard{}
	var at place
	var s parkedShard
	var stream string
	var d Degradation
	_, err = pgx.ForEachRow(rows, []any{&at.checkpoint, &at.shard, &s.changes, &s.moved, &stream, &d.Position, &d.Since}, func() error {
		known, begun := read[at]
		if !begun {
			known = parkedShard{changes: s.changes, moved: s.moved, streams: map[string]*Degradation{}}
		}
		if stream != "" {
			one := d
			known.streams[stream] = &one
		}
		read[at] = known
		return nil
	})
	if err != nil {
		return fmt.Errorf("look up parked streams: %w", err)
	}
	p.mu.Lock()
	for _, checkpoint := range changed {
		for shard := range p.parked[checkpoint] {
			if at := (place{checkpoint, shard}); read[at].streams == nil {
				read[at] = parkedShard{} // the table has fewer shards than it had
			}
		}
	}
	keys, tell := map[string][]string{}, []func(){}
	for at, now := range read {
		if p.parked[at.checkpoint][at.shard].local.After(started) {
			continue // what this process did meanwhile is newer
		}
		keys[at.checkpoint] = append(keys[at.checkpoint], p.park(at.checkpoint, at.shard, now)...)
	}
	for checkpoint := range maps.Keys(keys) {
		tell = append(tell, p.tellParked(checkpoint, keys[checkpoint]))
	}
	p.mu.Unlock()
	for _, f := range tell {
		f()
	}
	return nil
}

// lookParked finds out what other processes parked, for those who do not wait, and what a crash of Postgres took back.
func (p *Progress) lookParked(ctx context.Context, checkpoint string) {
	started := time.Now()
	rows, err := p.pool.Query(ctx, sqlParkedChanges, checkpoint)
	if err != nil {
		return // the next look finds it
	}
	found := []serving{}
	s := serving{Checkpoint: checkpoint}
	_, err = pgx.ForEachRow(rows, []any{&s.Shard, &s.ParkedChanges, &s.Position}, func() error {
		found = append(found, s)
		return nil
	})
	if err == nil {
		p.takeBack(found, started)
		_ = p.learnParked(ctx, found) // the next look finds it
	}
}

// takeBack forgets how far those shards have come that are further back now: what a projection commits does not wait for the
// disk, so a crash may lose the last of it. Whoever waits then looks them up.
func (p *Progress) takeBack(found []serving, started time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, row := range found {
		seen := p.reached[row.Checkpoint]
		if row.Shard < len(seen) && row.Position < seen[row.Shard].at.Position && !seen[row.Shard].local.After(started) {
			seen[row.Shard] = report{}
		}
	}
}

// ParkedMoved is the position at which what waits for a view last changed, as far as known here. Who knows the view from
// before knows rows that have changed since without an event.
func (p *Progress) ParkedMoved(projection string) (position int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v, known := p.views[projection]; known {
		for _, shard := range p.parked[v.checkpoint] {
			position = max(position, shard.moved)
		}
	}
	return position
}

// switchedParked makes the function that tells the feeds of the rows that another generation shows otherwise. The caller holds
// the lock, and has the view's checkpoint be the new one already.
func (p *Progress) switchedParked(before, now string) func() {
	var keys []string
	for _, checkpoint := range []string{before, now} {
		for _, shard := range p.parked[checkpoint] {
			for stream := range shard.streams {
				keys = append(keys, stream)
			}
		}
	}
	return p.tellParked(now, keys)
}
