package queries

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
)

// MaxShards is how many shards a projection can have. Each costs a connection for the time of a batch, and a lease.
const MaxShards = 256

// Projection is a view's way from events to its table, with the view's types erased: what a consumer of the log runs.
// It is a value; At gives the same for another generation. It is safe for concurrent use, but one table must have one
// writer at a time, which is what checkpoints and their leases see to.
type Projection struct {
	Name       string   // the view's stable name, such as "cart"
	Version    int      // the shape of the table; a migration makes a table for each
	Generation int      // which fill of that shape; rebuilds count up from 1
	Types      []string // of the events it takes; the checkpoint moves over all others
	Shards     int      // how many owners share the work on its table, by stream; 0 and 1: one, for all
	OnFailure  OnFailure

	folded   bool // the table has one row per key, and all SQL is this package's
	byStream bool // folded, and the key is the stream
	key      func(eventstore.Event) string
	apply    func(ctx context.Context, tx pgx.Tx, table string, events []eventstore.Event) error
	forget   func() // nil: nothing is kept
}

// OnFailure says what becomes of an event that a projection cannot handle, however often it is tried: one that cannot be
// decoded, that makes its code panic, or whose row the table refuses.
type OnFailure string

const (
	// Halt stops the projection exactly before the event, until somebody mends it. It is the zero value.
	Halt OnFailure = ""
	// Park lets the events of this stream wait, in order, from the one that cannot be handled on. All others flow, and what
	// shows the stream is marked; see Degradable. Where a row is not that of one stream, the events of the parked stream
	// are missing in it until they are handled, after later ones of other streams: order is kept within each stream alone.
	Park OnFailure = "park"
	// Skip passes over the event for good. The row is then what the fold gives without it, and nothing marks it.
	Skip OnFailure = "skip"
)

// Forget lets go of rows that are kept in memory. Whoever begins to own the projection's checkpoint calls it: what this
// process had folded before may have other events in it than what another wrote meanwhile, where events are parked or
// skipped.
func (p Projection) Forget() {
	if p.forget != nil {
		p.forget()
	}
}

// Checkpoint is the name of the projection's table and of its checkpoint: "cart_v1", and "cart_v1_2" from the second
// generation on.
func (p Projection) Checkpoint() string {
	name := p.Name + "_v" + strconv.Itoa(p.Version)
	if p.Generation > 1 {
		name += "_" + strconv.Itoa(p.Generation)
	}
	return name
}

// At returns the projection for another generation of the same shape.
func (p Projection) At(generation int) Projection {
	p.Generation = generation
	return p
}

// Takes tells whether events of this type are the projection's.
func (p Projection) Takes(eventType string) bool { return slices.Contains(p.Types, eventType) }

// Key is what of the view an event changes: the row's key.
func (p Projection) Key(e eventstore.Event) string { return p.key(e) }

// Apply brings the table up to date with events that follow what it has seen, in the order of the log. Events of other
// types are passed over. It writes in the caller's transaction, in which the caller moves the checkpoint; that makes the
// effect exactly-once. An event that cannot be decoded, and a panic in the view's code, are errors, and leave the
// transaction to be rolled back.
func (p Projection) Apply(ctx context.Context, tx pgx.Tx, events []eventstore.Event) (err error) {
	mine := make([]eventstore.Event, 0, len(events))
	for _, e := range events {
		if p.Takes(e.Type) {
			mine = append(mine, e)
		}
	}
	if len(mine) == 0 {
		return nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("projection %s panicked: %v", p.Checkpoint(), r)
		}
	}()
	if err := p.apply(ctx, tx, p.Checkpoint(), mine); err != nil {
		return fmt.Errorf("projection %s, events %d to %d: %w", p.Checkpoint(), mine[0].Position, mine[len(mine)-1].Position, err)
	}
	return nil
}

// Types lists the names of events, for View.Types.
func Types(payloads ...eventstore.Payload) []string {
	names := make([]string, len(payloads))
	for i, p := range payloads {
		names[i] = p.EventType()
	}
	return names
}

func stream(e eventstore.Event) string { return e.Stream }

func decode(registry *eventstore.Registry, e eventstore.Event) (eventstore.Payload, error) {
	payload, err := registry.Decode(e)
	if err != nil {
		return nil, fmt.Errorf("event %d: %w", e.Position, err)
	}
	return payload, nil
}
