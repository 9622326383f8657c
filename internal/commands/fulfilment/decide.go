package fulfilment

import (
	"fmt"
	"slices"

	"github.com/headrace/headrace/internal/commands"
)

func decide(cfg Config, s State, command Command) ([]Event, error) {
	if _, begins := command.(Start); !begins && s.Status == "" {
		return nil, refuse(CodeNotFound, "there is no fulfilment with this id")
	}
	if err := check(command); err != nil {
		return nil, err
	}
	switch c := command.(type) {
	case Start:
		return start(cfg, s, c)
	case CapturePayment:
		return capture(cfg, s, c)
	case NotePaid:
		return notePaid(cfg, s, c)
	case RefusePayment:
		if s.Status == AwaitingPayment {
			return []Event{PaymentRefused(c)}, nil
		}
		return nil, nil
	case Expire:
		return expire(s, c)
	case NoteCancelled:
		return noteCancelled(s, c)
	case Dispatch:
		return dispatch(s, c)
	case FailShipment:
		return failShipment(s, c)
	case ConfirmRefund:
		return confirmRefund(s, c)
	}
	return nil, fmt.Errorf("command %T is none of a fulfilment's", command)
}

// check bounds what comes from outside.
func check(command Command) error {
	switch c := command.(type) {
	case CapturePayment:
		return commands.CheckText("reference", c.Reference, MaxReferenceBytes)
	case ConfirmRefund:
		return commands.CheckText("reference", c.Reference, MaxReferenceBytes)
	case RefusePayment:
		return commands.CheckOptionalText("reason", c.Reason, MaxReasonBytes)
	case FailShipment:
		return commands.CheckOptionalText("reason", c.Reason, MaxReasonBytes)
	case Dispatch:
		return commands.CheckOptionalText("trackingCode", c.TrackingCode, MaxReferenceBytes)
	case Start, NotePaid, NoteCancelled, Expire: // from the program itself
	}
	return nil
}

func start(cfg Config, s State, c Start) ([]Event, error) {
	if s.Status != "" {
		return nil, nil // by a policy that runs at least once
	}
	return []Event{Started(c), PaymentRequested{Total: c.Total, Milliseconds: cfg.PayWithin.Milliseconds()}}, nil
}

// capture takes the one payment that is waited for. Any other goes back: it came too late, or is a second one.
func capture(cfg Config, s State, c CapturePayment) ([]Event, error) {
	switch {
	case s.knows(c.Reference):
		return nil, nil
	case c.Amount != s.Total:
		return nil, refuse(CodePaymentMismatch, fmt.Sprintf("payment %q is of %s, and the order comes to %s", c.Reference, c.Amount, s.Total))
	case s.Status == AwaitingPayment:
		return paid(cfg, c.Reference), nil
	default:
		return []Event{RefundRequested{Reference: c.Reference, Amount: c.Amount, Reason: "the order was paid or given up before"}}, nil
	}
}

// notePaid follows the order, which is always right about its payment.
func notePaid(cfg Config, s State, c NotePaid) ([]Event, error) {
	switch {
	case s.knows(c.Reference):
		return nil, nil
	case s.Status == AwaitingPayment, s.Status == Cancelling:
		return paid(cfg, c.Reference), nil
	case s.Status == AwaitingShipment: // the order had another one when that of the process reached it
		return []Event{
			PaymentCaptured(c),
			RefundRequested{Reference: s.Reference, Amount: s.Total, Reason: "the order was paid before"},
		}, nil
	default:
		return nil, nil
	}
}

func paid(cfg Config, reference string) []Event {
	return []Event{PaymentCaptured{Reference: reference}, ShipmentRequested{Milliseconds: cfg.ShipWithin.Milliseconds()}}
}

// expire is of no effect when what the deadline was for has happened.
func expire(s State, c Expire) ([]Event, error) {
	switch {
	case c.Deadline == DeadlinePayment && s.Status == AwaitingPayment:
		return []Event{PaymentTimedOut{}}, nil
	case c.Deadline == DeadlineShipment && s.Status == AwaitingShipment:
		return giveUpShipping(s, "not shipped in time"), nil
	default:
		return nil, nil
	}
}

// giveUpShipping compensates: what was paid goes back.
func giveUpShipping(s State, reason string) []Event {
	return []Event{
		ShipmentFailed{Reason: reason},
		RefundRequested{Reference: s.Reference, Amount: s.Total, Reason: reason},
	}
}

func noteCancelled(s State, c NoteCancelled) ([]Event, error) {
	switch s.Status {
	case AwaitingPayment, Cancelling:
		return []Event{Cancelled{Reason: c.Reason}}, nil
	case AwaitingShipment:
		return []Event{RefundRequested{Reference: s.Reference, Amount: s.Total, Reason: c.Reason}}, nil
	default:
		return nil, nil
	}
}

func dispatch(s State, c Dispatch) ([]Event, error) {
	switch s.Status {
	case AwaitingShipment:
		return []Event{Shipped(c), Completed{}}, nil
	case Finished:
		return nil, nil
	case AwaitingPayment, Cancelling:
		return nil, refuse(CodeNotDue, "the order is not paid, and was not to be shipped")
	default:
		return nil, refuse(CodeTooLate, "the order was given up before it was shipped; somebody has to get the goods back")
	}
}

func failShipment(s State, c FailShipment) ([]Event, error) {
	switch s.Status {
	case AwaitingShipment:
		return giveUpShipping(s, c.Reason), nil
	case AwaitingPayment, Cancelling:
		return nil, refuse(CodeNotDue, "the order is not paid, and was not to be shipped")
	case Finished:
		return nil, refuse(CodeTooLate, "the goods left before")
	default:
		return nil, nil
	}
}

func confirmRefund(s State, c ConfirmRefund) ([]Event, error) {
	switch {
	case slices.Contains(s.Returned, c.Reference):
		return nil, nil
	case !slices.Contains(s.Owed, c.Reference):
		return nil, refuse(CodeNoRefund, fmt.Sprintf("payment %q was not to go back", c.Reference))
	case s.Status == Refunding && c.Reference == s.Reference:
		return []Event{Refunded(c), Cancelled{Reason: s.Reason, Refunded: true}}, nil
	default:
		return []Event{Refunded(c)}, nil
	}
}

func refuse(code, message string) error { return &commands.Rejection{Code: code, Message: message} }
