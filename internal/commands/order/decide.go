package order

import (
	"cmp"
	"fmt"

	"github.com/headrace/headrace/internal/commands"
)

func pay(s State, c Pay) ([]Event, error) {
	if err := commands.CheckText("reference", c.Reference, MaxReferenceBytes); err != nil {
		return nil, err
	}
	if s.Reference == c.Reference {
		return nil, nil
	}
	if s.Reference != "" {
		return nil, &commands.Rejection{
			Code: CodeAlreadyPaid, Field: "reference",
			Message: fmt.Sprintf("the order was paid before, with reference %q", s.Reference),
		}
	}
	if s.Status == StatusCancelled {
		return nil, refuseCancelled()
	}
	return []Event{Paid(c)}, nil
}

func ship(s State, c Ship) ([]Event, error) {
	if err := commands.CheckOptionalText("trackingCode", c.TrackingCode, MaxTrackingCodeBytes); err != nil {
		return nil, err
	}
	switch s.Status {
	case StatusPaid:
		return []Event{Shipped(c)}, nil
	case StatusPlaced:
		return nil, refuseUnpaid()
	case StatusShipped, StatusDelivered:
		return nil, refuse(CodeAlreadyShipped, "the order was shipped before")
	default:
		return nil, refuseEnded(s)
	}
}

func deliver(s State) ([]Event, error) {
	switch s.Status {
	case StatusShipped:
		return []Event{Delivered{}}, nil
	case StatusPlaced, StatusPaid:
		return nil, refuse(CodeNotShipped, "the order was not shipped yet")
	case StatusDelivered:
		return nil, refuse(CodeAlreadyDelivered, "the order was delivered before")
	default:
		return nil, refuseEnded(s)
	}
}

func cancel(s State, c Cancel) ([]Event, error) {
	if err := commands.CheckOptionalText("reason", c.Reason, MaxReasonBytes); err != nil {
		return nil, err
	}
	switch s.Status {
	case StatusPlaced, StatusPaid:
		return []Event{Cancelled(c)}, nil
	case StatusShipped, StatusDelivered:
		return nil, refuse(CodeAlreadyShipped, "the order was shipped and can no longer be cancelled")
	default:
		return nil, refuseEnded(s)
	}
}

// cancelUnpaid is asked for by a message that comes at least once, whatever became of the order in the meantime.
func cancelUnpaid(s State, c CancelUnpaid) ([]Event, error) {
	if err := commands.CheckOptionalText("reason", c.Reason, MaxReasonBytes); err != nil {
		return nil, err
	}
	switch {
	case s.Reference != "":
		return nil, refuse(CodeAlreadyPaid, "the order was paid")
	case s.Status == StatusCancelled:
		return nil, nil
	default:
		return []Event{Cancelled{Reason: cmp.Or(c.Reason, ReasonUnpaid)}}, nil
	}
}

func refund(s State, c Refund) ([]Event, error) {
	if err := commands.CheckOptionalText("reason", c.Reason, MaxReasonBytes); err != nil {
		return nil, err
	}
	switch {
	case s.Status == StatusRefunded:
		return nil, refuseEnded(s)
	case s.Reference == "":
		return nil, refuseUnpaid()
	case s.Status == StatusPaid:
		return nil, refuse(CodeNotRefundable, "the order is about to be shipped; cancel it first")
	default:
		return []Event{Refunded(c)}, nil
	}
}

// refuseEnded is the refusal of what comes after the end of an order.
func refuseEnded(s State) error {
	if s.Status == StatusRefunded {
		return refuse(CodeRefunded, "the order was refunded")
	}
	return refuseCancelled()
}

func refuseCancelled() error { return refuse(CodeCancelled, "the order was cancelled") }

func refuseUnpaid() error { return refuse(CodeNotPaid, "the order was not paid") }
