package order_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/decidertest"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/commands/order"
)

type scenario = decidertest.Scenario[order.Command, order.Event, order.State]

func given(events ...order.Event) scenario {
	return decidertest.Given(order.Decider(), events...)
}

func eur(amount int64) money.Money { return money.Money{Amount: amount, Currency: "EUR"} }

func placed() order.Placed {
	return order.Placed{
		CartID: "cart-1", OwnerID: "ada", Total: eur(500),
		Items: []order.Item{{SKU: "pen", Name: "Pen", Quantity: 2, UnitPrice: eur(250)}},
	}
}

var paid = order.Paid{Reference: "ref-1"}

func TestPlaceOnceForEachCart(t *testing.T) {
	t.Parallel()
	given().When(order.Place(placed())).Then(t, placed())
	given(placed()).When(order.Place(placed())).Then(t)
	given(placed(), order.Cancelled{}).When(order.Place(placed())).Then(t)
	other := order.Place(placed())
	other.CartID = "cart-2"
	given(placed()).When(other).ThenRejected(t, order.CodeExists)
}

func TestPlaceChecksTheTotal(t *testing.T) {
	t.Parallel()
	place := func(change func(*order.Place)) order.Place {
		c := order.Place(placed())
		change(&c)
		return c
	}
	given().When(place(func(c *order.Place) { c.Items = nil })).ThenRejected(t, order.CodeEmpty)
	given().When(place(func(c *order.Place) { c.Total = eur(499) })).ThenRejected(t, order.CodeTotalMismatch)
	given().When(place(func(c *order.Place) { c.Total.Currency = "USD" })).ThenRejected(t, order.CodeTotalMismatch)
	given().When(place(func(c *order.Place) { c.Items[0].Quantity = -2 })).ThenRejected(t, order.CodeTotalMismatch)
}

// The table says for each stage of an order what every command is answered: a refusal's code, "ok" for an event, or
// "same" for a success that changes nothing.
func TestWhatIsPossibleAtEachStage(t *testing.T) {
	t.Parallel()
	asked := []order.Command{
		order.Pay{Reference: "ref-1"},
		order.Pay{Reference: "ref-2"},
		order.Ship{TrackingCode: "T"},
		order.Deliver{},
		order.Cancel{Reason: "changed my mind"},
		order.CancelUnpaid{},
		order.Refund{Reason: "broken"},
	}
	shipped, delivered := order.Shipped{TrackingCode: "T"}, order.Delivered{}
	cancelled, refunded := order.Cancelled{Reason: "x"}, order.Refunded{Reason: "y"}
	for _, stage := range []struct {
		name    string
		events  []order.Event
		answers []string
	}{
		{"never placed", nil, slices.Repeat([]string{order.CodeNotFound}, len(asked))},
		{
			"placed",
			[]order.Event{placed()},
			[]string{"ok", "ok", order.CodeNotPaid, order.CodeNotShipped, "ok", "ok", order.CodeNotPaid},
		},
		{
			"paid",
			[]order.Event{placed(), paid},
			[]string{"same", order.CodeAlreadyPaid, "ok", order.CodeNotShipped, "ok", order.CodeAlreadyPaid, order.CodeNotRefundable},
		},
		{
			"shipped",
			[]order.Event{placed(), paid, shipped},
			[]string{
				"same", order.CodeAlreadyPaid, order.CodeAlreadyShipped, "ok", order.CodeAlreadyShipped,
				order.CodeAlreadyPaid, "ok",
			},
		},
		{
			"delivered",
			[]order.Event{placed(), paid, shipped, delivered},
			[]string{
				"same", order.CodeAlreadyPaid, order.CodeAlreadyShipped, order.CodeAlreadyDelivered,
				order.CodeAlreadyShipped, order.CodeAlreadyPaid, "ok",
			},
		},
		{
			"cancelled unpaid",
			[]order.Event{placed(), cancelled},
			[]string{
				order.CodeCancelled, order.CodeCancelled, order.CodeCancelled, order.CodeCancelled,
				order.CodeCancelled, "same", order.CodeNotPaid,
			},
		},
		{
			"cancelled paid",
			[]order.Event{placed(), paid, cancelled},
			[]string{
				"same", order.CodeAlreadyPaid, order.CodeCancelled, order.CodeCancelled,
				order.CodeCancelled, order.CodeAlreadyPaid, "ok",
			},
		},
		{
			"refunded",
			[]order.Event{placed(), paid, shipped, refunded},
			[]string{
				"same", order.CodeAlreadyPaid, order.CodeRefunded, order.CodeRefunded,
				order.CodeRefunded, order.CodeAlreadyPaid, order.CodeRefunded,
			},
		},
	} {
		for i, command := range asked {
			t.Run(stage.name+"/"+command.CommandType(), func(t *testing.T) {
				t.Parallel()
				outcome := given(stage.events...).When(command)
				switch answer := stage.answers[i]; answer {
				case "ok":
					outcome.Then(t, eventFor(command))
				case "same":
					outcome.Then(t)
				default:
					outcome.ThenRejected(t, answer)
				}
			})
		}
	}
}

func eventFor(command order.Command) order.Event {
	switch c := command.(type) {
	case order.Place:
		return order.Placed(c)
	case order.Pay:
		return order.Paid(c)
	case order.Ship:
		return order.Shipped(c)
	case order.Deliver:
		return order.Delivered{}
	case order.Cancel:
		return order.Cancelled(c)
	case order.CancelUnpaid:
		return order.Cancelled{Reason: order.ReasonUnpaid}
	case order.Refund:
		return order.Refunded(c)
	}
	return nil
}

func TestTextsAreLimited(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 501)
	for field, command := range map[string]order.Command{
		"reference":    order.Pay{Reference: long},
		"trackingCode": order.Ship{TrackingCode: long},
		"reason":       order.Cancel{Reason: long},
	} {
		if got := given(placed()).When(command).ThenRejected(t, commands.CodeTooLong).Field; got != field {
			t.Errorf("refused field %q, want %q", got, field)
		}
	}
	given(placed()).When(order.Refund{Reason: long}).ThenRejected(t, commands.CodeTooLong)
	given(placed()).When(order.Pay{}).ThenRejected(t, commands.CodeRequired)
}

func TestCancellingAnUnpaidOrderMayHaveAReason(t *testing.T) {
	t.Parallel()
	given(placed()).When(order.CancelUnpaid{Reason: "no funds"}).Then(t, order.Cancelled{Reason: "no funds"})
	given(placed()).When(order.CancelUnpaid{Reason: strings.Repeat("x", 501)}).ThenRejected(t, commands.CodeTooLong)
}

func TestForCartIsTheSameForEver(t *testing.T) {
	t.Parallel()
	const cart = "cart-01890000-0000-7000-8000-000000000000"
	if got := order.ForCart(cart); got != "order-01890000-0000-7000-8000-000000000000" {
		t.Fatalf("got %q", got)
	}
}

func TestDeciderIsPure(t *testing.T) {
	t.Parallel()
	decidertest.CheckPure(t, order.Decider(), rapid.SampledFrom([]order.Command{
		order.Place(placed()), order.Place(placed()),
		order.Pay{Reference: "ref-1"},
		order.Pay{Reference: "ref-2"},
		order.Ship{},
		order.Deliver{},
		order.Cancel{},
		order.CancelUnpaid{},
		order.Refund{},
	}), nil)
}

func TestRecordedJSON(t *testing.T) {
	t.Parallel()
	decidertest.CheckGolden(t, order.Events(),
		placed(), paid, order.Shipped{TrackingCode: "T-1"}, order.Delivered{}, order.Cancelled{Reason: "why"},
		order.Refunded{Reason: "why"})
}
