package fulfilment

import "github.com/headrace/headrace/internal/commands/money"

// Command is what the process is told: by the order's events, by the world outside, and by the clock. All of it may come
// twice, late, and in any order.
//
//sumtype:decl
type Command interface {
	CommandType() string
	isFulfilmentCommand()
}

// Start begins the fulfilment of an order that was placed.
type Start struct {
	OwnerID string      `json:"ownerId"`
	Total   money.Money `json:"total"`
}

// CapturePayment is the provider's word that it has received a payment.
type CapturePayment struct {
	Reference string      `json:"reference"`
	Amount    money.Money `json:"amount"`
}

// RefusePayment is the provider's word that there will be none.
type RefusePayment struct {
	Reason string `json:"reason"`
}

// ConfirmRefund is the provider's word that a payment went back.
type ConfirmRefund struct {
	Reference string `json:"reference"`
}

// Dispatch is the carrier's word that the goods left.
type Dispatch struct {
	TrackingCode string `json:"trackingCode,omitempty"`
}

// FailShipment is the carrier's word that they will not.
type FailShipment struct {
	Reason string `json:"reason"`
}

// NotePaid says that the order counts this payment.
type NotePaid struct {
	Reference string `json:"reference"`
}

// NoteShipped says that the order counts as shipped.
type NoteShipped struct {
	TrackingCode string `json:"trackingCode,omitempty"`
}

// NoteCancelled says that the order was cancelled.
type NoteCancelled struct {
	Reason string `json:"reason"`
}

// Expire says that a deadline has passed: DeadlinePayment or DeadlineShipment.
type Expire struct {
	Deadline string `json:"deadline"`
}

func (Start) CommandType() string          { return "fulfilment.start" }
func (CapturePayment) CommandType() string { return "fulfilment.capture_payment" }
func (RefusePayment) CommandType() string  { return "fulfilment.refuse_payment" }
func (ConfirmRefund) CommandType() string  { return "fulfilment.confirm_refund" }
func (Dispatch) CommandType() string       { return "fulfilment.dispatch" }
func (FailShipment) CommandType() string   { return "fulfilment.fail_shipment" }
func (NotePaid) CommandType() string       { return "fulfilment.note_paid" }
func (NoteShipped) CommandType() string    { return "fulfilment.note_shipped" }
func (NoteCancelled) CommandType() string  { return "fulfilment.note_cancelled" }
func (Expire) CommandType() string         { return "fulfilment.expire" }

func (Start) isFulfilmentCommand()          {}
func (CapturePayment) isFulfilmentCommand() {}
func (RefusePayment) isFulfilmentCommand()  {}
func (ConfirmRefund) isFulfilmentCommand()  {}
func (Dispatch) isFulfilmentCommand()       {}
func (FailShipment) isFulfilmentCommand()   {}
func (NotePaid) isFulfilmentCommand()       {}
func (NoteShipped) isFulfilmentCommand()    {}
func (NoteCancelled) isFulfilmentCommand()  {}
func (Expire) isFulfilmentCommand()         {}
