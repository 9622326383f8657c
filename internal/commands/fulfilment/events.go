package fulfilment

import "github.com/headrace/headrace/internal/commands/money"

// Event is what can happen in the fulfilment of an order.
//
//sumtype:decl
type Event interface {
	EventType() string
	isFulfilmentEvent()
}

// Started begins the process.
type Started struct {
	OwnerID string      `json:"ownerId"`
	Total   money.Money `json:"total"`
}

// PaymentRequested says that the provider was asked for the total.
type PaymentRequested struct {
	Total        money.Money `json:"total"`
	Milliseconds int64       `json:"milliseconds"` // until it is too late
}

// PaymentCaptured says that the whole total was received.
type PaymentCaptured struct {
	Reference string `json:"reference"` // the provider's
}

// PaymentRefused says that the provider gets no money.
type PaymentRefused struct {
	Reason string `json:"reason"`
}

// PaymentTimedOut says that nobody paid in time.
type PaymentTimedOut struct{}

// ShipmentRequested says that the carrier was asked to fetch the goods.
type ShipmentRequested struct {
	Milliseconds int64 `json:"milliseconds"` // until it is too late
}

// Shipped says that the goods left.
type Shipped struct {
	TrackingCode string `json:"trackingCode,omitempty"`
}

// ShipmentFailed says that the goods will not leave, as far as the process knows.
type ShipmentFailed struct {
	Reason string `json:"reason"`
}

// RefundRequested says that the provider was asked to give a payment back: that of an order which is not shipped, or one
// that came too late, or a second one.
type RefundRequested struct {
	Reference string      `json:"reference"`
	Amount    money.Money `json:"amount"`
	Reason    string      `json:"reason"`
}

// Refunded says that a payment went back.
type Refunded struct {
	Reference string `json:"reference"`
}

// Completed ends the process: paid and shipped.
type Completed struct{}

// Cancelled ends the process: nothing was shipped.
type Cancelled struct {
	Reason   string `json:"reason"`
	Refunded bool   `json:"refunded,omitempty"` // whether the order had been paid
}

func (Started) EventType() string           { return "fulfilment.started" }
func (PaymentRequested) EventType() string  { return "fulfilment.payment_requested" }
func (PaymentCaptured) EventType() string   { return "fulfilment.payment_captured" }
func (PaymentRefused) EventType() string    { return "fulfilment.payment_refused" }
func (PaymentTimedOut) EventType() string   { return "fulfilment.payment_timed_out" }
func (ShipmentRequested) EventType() string { return "fulfilment.shipment_requested" }
func (Shipped) EventType() string           { return "fulfilment.shipped" }
func (ShipmentFailed) EventType() string    { return "fulfilment.shipment_failed" }
func (RefundRequested) EventType() string   { return "fulfilment.refund_requested" }
func (Refunded) EventType() string          { return "fulfilment.refunded" }
func (Completed) EventType() string         { return "fulfilment.completed" }
func (Cancelled) EventType() string         { return "fulfilment.cancelled" }

func (Started) isFulfilmentEvent()           {}
func (PaymentRequested) isFulfilmentEvent()  {}
func (PaymentCaptured) isFulfilmentEvent()   {}
func (PaymentRefused) isFulfilmentEvent()    {}
func (PaymentTimedOut) isFulfilmentEvent()   {}
func (ShipmentRequested) isFulfilmentEvent() {}
func (Shipped) isFulfilmentEvent()           {}
func (ShipmentFailed) isFulfilmentEvent()    {}
func (RefundRequested) isFulfilmentEvent()   {}
func (Refunded) isFulfilmentEvent()          {}
func (Completed) isFulfilmentEvent()         {}
func (Cancelled) isFulfilmentEvent()         {}
