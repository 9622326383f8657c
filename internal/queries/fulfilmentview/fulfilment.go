// Package fulfilmentview answers how far the fulfilment of orders is: one row per process, folded from its events.
//
// It promises that a row equals the fold of its stream up to the view's checkpoint, however the events were batched.
// It does not promise to be current: wait for a token with queries.Progress first where that matters.
package fulfilmentview

import (
	"context"
	"time"

	"github.com/headrace/headrace/internal/commands/fulfilment"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// Name is the view's stable name: of the SQL view, and of the projection to wait for.
const Name = "fulfilment"

// Status is what a process waits for, or how it ended.
type Status string

const (
	AwaitingPayment  Status = "AWAITING_PAYMENT"
	Cancelling       Status = "CANCELLING"
	AwaitingShipment Status = "AWAITING_SHIPMENT"
	Refunding        Status = "REFUNDING"
	Completed        Status = "COMPLETED"
	Cancelled        Status = "CANCELLED"
)

// Fulfilment is the process of an order as readers see it. Its slices are shared between copies and must not be changed.
type Fulfilment struct {
	ID               string     `db:"id,key"` // the stream's name
	OwnerID          string     `db:"owner_id"`
	Status           Status     `db:"status"`
	PayBy            *time.Time `db:"pay_by"`  // nil unless a payment is waited for
	ShipBy           *time.Time `db:"ship_by"` // nil unless a shipment is waited for
	PaymentReference *string    `db:"payment_reference"`
	TrackingCode     *string    `db:"tracking_code"`
	Reason           *string    `db:"reason"` // why nothing is shipped
	Steps            []Step     `db:"steps"`
	Version          int64      `db:"version"`       // of the stream
	Position         int64      `db:"position,seen"` // in the log, of the last event seen
	StartedAt        time.Time  `db:"started_at"`
	UpdatedAt        time.Time  `db:"updated_at"`

	queries.Degradable // says when an event of it could not be handled
}

// OrderID is the order that is fulfilled.
func (f Fulfilment) OrderID() string { return fulfilment.OrderOf(f.ID) }

// Step is one thing that happened.
type Step struct {
	Name string    `json:"name"` // of the event, without what all of them begin with
	At   time.Time `json:"at"`
	Note *string   `json:"note,omitempty"` // a reference, a reason or a tracking code
}

const (
	sqlList = `select id, owner_id, status, pay_by, ship_by, payment_reference, tracking_code, reason, steps,
	version, position, started_at, updated_at from fulfilment`

	sqlByID  = sqlList + ` where id = $1`
	sqlByIDs = sqlList + ` where id = any($1)`
)

// Reader reads fulfilments under the view's stable name. It is safe for concurrent use.
type Reader struct{ reads *queries.Reads }

// NewReader returns a reader over the reads, which it does not close.
func NewReader(reads *queries.Reads) *Reader { return &Reader{reads: reads} }

// Get returns a fulfilment, or nil when the view knows none of this id.
func (r *Reader) Get(ctx context.Context, id string) (*Fulfilment, error) {
	return queries.One[Fulfilment](ctx, r.reads, "read fulfilment", sqlByID, id)
}

// GetMany returns the fulfilments of these ids in the ids' order, with nil for each that the view does not know.
func (r *Reader) GetMany(ctx context.Context, ids []string) ([]*Fulfilment, error) {
	return queries.Many(ctx, r.reads, "read fulfilments", sqlByIDs, ids, func(f *Fulfilment) string { return f.ID })
}

// View declares the view of fulfilments.
func View() queries.View[Fulfilment] {
	return queries.View[Fulfilment]{
		Name:    Name,
		Version: 1,
		Types: queries.Types(
			fulfilment.Started{}, fulfilment.PaymentRequested{}, fulfilment.PaymentCaptured{}, fulfilment.PaymentRefused{},
			fulfilment.PaymentTimedOut{}, fulfilment.ShipmentRequested{}, fulfilment.Shipped{}, fulfilment.ShipmentFailed{},
			fulfilment.RefundRequested{}, fulfilment.Refunded{}, fulfilment.Completed{}, fulfilment.Cancelled{},
		),
		OnFailure: queries.Park,
		Evolve:    Evolve,
	}
}

// Evolve returns the fulfilment after an event.
func Evolve(f Fulfilment, e eventstore.Event, p eventstore.Payload) Fulfilment {
	f.Version, f.Position, f.UpdatedAt = e.Version, e.Position, e.RecordedAt
	until := func(milliseconds int64) *time.Time {
		at := e.RecordedAt.Add(time.Duration(milliseconds) * time.Millisecond)
		return &at
	}
	note := ""
	switch p := p.(type) {
	case fulfilment.Started:
		f.ID, f.OwnerID, f.StartedAt = e.Stream, p.OwnerID, e.RecordedAt
	case fulfilment.PaymentRequested:
		f.Status, f.PayBy = AwaitingPayment, until(p.Milliseconds)
	case fulfilment.PaymentCaptured:
		f.PaymentReference, f.PayBy, note = &p.Reference, nil, p.Reference
	case fulfilment.PaymentRefused:
		f.Status, f.Reason, f.PayBy, note = Cancelling, &p.Reason, nil, p.Reason
	case fulfilment.PaymentTimedOut:
		f.Status, f.PayBy = Cancelling, nil
	case fulfilment.ShipmentRequested:
		f.Status, f.Reason, f.ShipBy = AwaitingShipment, nil, until(p.Milliseconds)
	case fulfilment.Shipped:
		f.ShipBy, note = nil, p.TrackingCode
		if p.TrackingCode != "" {
			f.TrackingCode = &p.TrackingCode
		}
	case fulfilment.ShipmentFailed:
		f.Status, f.Reason, f.ShipBy, note = Cancelling, &p.Reason, nil, p.Reason
	case fulfilment.RefundRequested:
		note = p.Reference
		if f.PaymentReference != nil && p.Reference == *f.PaymentReference {
			f.Status, f.Reason, f.ShipBy = Refunding, &p.Reason, nil
		}
	case fulfilment.Refunded:
		note = p.Reference
	case fulfilment.Completed:
		f.Status = Completed
	case fulfilment.Cancelled:
		f.Status, f.Reason, f.PayBy, note = Cancelled, &p.Reason, nil, p.Reason
	}
	step := Step{Name: e.Type[len(fulfilment.Category)+1:], At: e.RecordedAt}
	if note != "" {
		step.Note = &note
	}
	f.Steps = append(f.Steps[:len(f.Steps):len(f.Steps)], step)
	return f
}
