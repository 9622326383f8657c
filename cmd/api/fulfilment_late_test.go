package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/headrace/headrace/internal/commands/fulfilment"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/pgtest"
)

// operate runs a command of the program on the test's database.
func operate(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out, problems strings.Builder
	if code := run(context.WithoutCancel(t.Context()), append(args, "--database-url", pgtest.URL(t)), &out, &problems); code != want {
		t.Fatalf("%v: exit code %d: %s%s", args, code, &out, &problems)
	}
	return out.String() + problems.String()
}

// change sends a mutation of an order that is accepted.
func (s store) change(t *testing.T, mutation, input string) {
	t.Helper()
	var got map[string]payload
	s.ask(t, fmt.Sprintf(`mutation { %s(input: {%s}) { userErrors { code field } } }`, mutation, input), nil, &got)
	if refused := got[mutation].UserErrors; len(refused) > 0 {
		t.Fatalf("%s: %+v", mutation, refused)
	}
}

// While the process manager stands still, an order and the outside say things that do not go together. The order is right:
// one that was shipped stays so, and its payment with it. Goods that left for one that was cancelled are seen.
func TestAProcessThatHearsLateFollowsTheOrder(t *testing.T) {
	t.Parallel()
	s := openStore(t, Config{})
	cancelled, shipped := s.place(t), s.place(t)
	for i, order := range []string{cancelled, shipped} {
		s.says(t, fulfilment.TopicPaymentCaptured, fmt.Sprint("paid-", i), payment(order, fmt.Sprint("p-", i)))
		s.comesTo(t, order, "PAID", "AWAITING_SHIPMENT")
	}
	operate(t, exitDone, "projections", "pause", fulfilment.Name)
	until(t, "the process manager to stand still", func() bool {
		return strings.HasPrefix(s.app.readiness(t.Context()).Parts["policy "+fulfilment.Name], "paused")
	})
	s.change(t, "cancelOrder", fmt.Sprintf("orderId: %q, reason: \"dear\"", cancelled))
	s.says(t, fulfilment.TopicShipmentDispatched, "gone", fulfilment.Answer{OrderID: cancelled})
	s.comesTo(t, cancelled, "CANCELLED", "COMPLETED")
	s.change(t, "shipOrder", fmt.Sprintf("orderId: %q", shipped))
	s.says(t, fulfilment.TopicShipmentFailed, "lost", fulfilment.Answer{OrderID: shipped, Reason: "lost"})
	s.comesTo(t, shipped, "SHIPPED", "CANCELLING")

	operate(t, exitDone, "projections", "resume", fulfilment.Name)
	s.comesTo(t, shipped, "SHIPPED", "COMPLETED")
	s.comesTo(t, cancelled, "CANCELLED", "REFUNDING")
	process := fulfilment.ForOrder(cancelled)
	until(t, "the goods that are gone to be seen", func() bool {
		p, found, err := outbox.FindParked(t.Context(), s.pool, fulfilment.Name, process)
		return err == nil && found && strings.Contains(p.Reason, "ORDER_CANCELLED")
	})
	if out := operate(t, exitFailed, "status"); !strings.Contains(out, "fulfilment: 1 parked") {
		t.Errorf("status says %s", out)
	}
	s.says(t, fulfilment.TopicPaymentRefunded, "back", fulfilment.Answer{OrderID: cancelled, Reference: "p-0"})
	s.comesTo(t, cancelled, "CANCELLED", "CANCELLED")
	operate(t, exitDone, "parked", "skip", fulfilment.Name, process, "--reason", "the carrier brings them back", "--wait", patience.String())
	s.comesTo(t, cancelled, "REFUNDED", "CANCELLED")
	if got := s.happened(t, shipped); slices.Contains(got, "refund_requested") {
		t.Errorf("the payment of the order that was shipped goes back: %v", got)
	}
}
