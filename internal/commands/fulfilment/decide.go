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
	case NoteShipped:
		return dispatch(s, Shipped(c), true)
	case NoteCancelled:
		return noteCancelled(s, c)
	case Dispatch:
		return dispatch(s, Shipped(c), false)
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
	case Start, NotePaid, NoteShipped, NoteCancelled, Expire: // from the program itself
	}
	return nil
}

func start(cfg Config, s State, c Start) ([]Event, error) {
	if s.Status != "" {
		return nil, nil // by a policy that runs at least once
	}
	return []Event{Started(c), PaymentRequested{Total: c.Total, Milliseconds: cfg.PayWithin.Milliseconds()}}, nil
}

// capture takes the first payment: to have the goods shipped, or to wait with it for what the order says. Any other goes
// back: it came too late, or is a second one.
func capture(cfg Config, s State, c CapturePayment) ([]Event, error) {
	switch {
	case s.knows(c.Reference):
		return nil, nil
	case c.Amount != s.Total:
		return nil, refuse(CodePaymentMismatch, fmt.Sprintf("payment %q is of %s, and the order comes to %s", c.Reference, c.Amount, s.Total))
	case s.Status == AwaitingPayment:
		return []Event{PaymentCaptured{Reference: c.Reference}, askCarrier(cfg)}, nil
	case s.Status == Cancelling && s.Reference == "":
		return []Event{PaymentCaptured{Reference: c.Reference}}, nil
	default:
		return []Event{s.giveBack(c.Reference, "the order was paid or given up before")}, nil
	}
}

// notePaid follows the order, which is always right about its payment: that one is kept in the place of another. Whichever
// it is, goods that nobody was asked for yet are to be shipped.
func notePaid(cfg Config, s State, c NotePaid) ([]Event, error) {
	over := s.Status == Refunding || s.Status == Ended
	var events []Event
	switch {
	case s.knows(c.Reference):
	case over:
		events = append(events, s.giveBack(c.Reference, "the order was given up before"))
	default:
		events = append(events, PaymentCaptured(c))
		if s.Reference != "" {
			events = append(events, s.giveBack(s.Reference, "the order was paid before"))
		}
	}
	if !s.Asked && !over {
		events = append(events, askCarrier(cfg))
	}
	return events, nil
}

func askCarrier(cfg Config) Event {
	return ShipmentRequested{Milliseconds: cfg.ShipWithin.Milliseconds()}
}

// giveBack has the provider give a payment back. All that are taken are of the total.
func (s State) giveBack(reference, reason string) Event {
	return RefundRequested{Reference: reference, Amount: s.Total, Reason: reason}
}

// expire is of no effect when what the deadline was for has happened.
func expire(s State, c Expire) ([]Event, error) {
	switch {
	case c.Deadline == DeadlinePayment && s.Status == AwaitingPayment:
		return []Event{PaymentTimedOut{}}, nil
	case c.Deadline == DeadlineShipment && s.Status == AwaitingShipment:
		return []Event{ShipmentFailed{Reason: "not shipped in time"}}, nil
	default:
		return nil, nil
	}
}

// noteCancelled gives back what was paid, also when the carrier has the goods: the order's refusal to be shipped tells a
// person of those.
func noteCancelled(s State, c NoteCancelled) ([]Event, error) {
	switch {
	case s.Status == Refunding, s.Status == Ended:
		return nil, nil
	case s.Reference != "":
		return []Event{s.giveBack(s.Reference, c.Reason)}, nil
	default:
		return []Event{Cancelled{Reason: c.Reason}}, nil
	}
}

// dispatch believes the carrier as long as the order is not given up, and the order always.
func dispatch(s State, shipped Shipped, byOrder bool) ([]Event, error) {
	switch {
	case s.Status == AwaitingShipment, byOrder && s.Status == Cancelling && s.Asked:
		return []Event{shipped, Completed{}}, nil
	case s.Status == Finished:
		return nil, nil
	case s.notAsked():
		return nil, refuseNotDue()
	default:
		return nil, refuse(CodeTooLate, "the order was given up before it was shipped; somebody has to get the goods back")
	}
}

func failShipment(s State, c FailShipment) ([]Event, error) {
	switch {
	case s.Status == AwaitingShipment:
		return []Event{ShipmentFailed(c)}, nil
	case s.Status == Finished:
		return nil, refuse(CodeTooLate, "the goods left before")
	case s.notAsked():
		return nil, refuseNotDue()
	default:
		return nil, nil
	}
}

// notAsked reports whether the carrier has nothing to say yet.
func (s State) notAsked() bool {
	return s.Status == AwaitingPayment || s.Status == Cancelling && !s.Asked
}

func refuseNotDue() error {
	return refuse(CodeNotDue, "the order is not paid, and was not to be shipped")
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
