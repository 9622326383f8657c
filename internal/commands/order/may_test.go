package order_test

import (
	"testing"

	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/identity"
)

func TestWhoMayDoWhatWithAnOrder(t *testing.T) {
	t.Parallel()
	people := map[string]identity.Identity{
		"nobody":      {},
		"a stranger":  {Subject: "eve", Roles: []string{"customer"}},
		"the owner":   {Subject: placed().OwnerID},
		"staff":       {Subject: "clerk", Roles: []string{identity.Staff}},
		"a pretender": {Subject: "policy:checkout"}, // the name alone is not the program
		"the program": identity.System("policy:checkout"),
	}
	for _, c := range []struct {
		given   []order.Event
		command order.Command
		may     []string
	}{
		{nil, order.Place(placed()), []string{"the program"}},
		{[]order.Event{placed()}, order.CancelUnpaid{}, []string{"the program"}},
		{[]order.Event{placed()}, order.Pay(paid), []string{"the owner", "staff", "the program"}},
		{[]order.Event{placed()}, order.Cancel{Reason: "dear"}, []string{"the owner", "staff", "the program"}},
		{[]order.Event{placed(), paid}, order.Ship{}, []string{"staff", "the program"}},
		{[]order.Event{placed(), paid, order.Shipped{}}, order.Deliver{}, []string{"staff", "the program"}},
		{[]order.Event{placed(), paid, order.Cancelled{}}, order.Refund{}, []string{"staff", "the program"}},
	} {
		may := map[string]bool{}
		for _, name := range c.may {
			may[name] = true
		}
		for name, who := range people {
			outcome := given(c.given...).As(who).When(c.command)
			if may[name] {
				outcome.Effects(t) // fails when it was refused
				continue
			}
			there := outcome.ThenForbidden(t)
			if gone := given().As(who).When(c.command).ThenForbidden(t); *gone != *there {
				t.Errorf("%s, %s: %q when it is there, %q when not", c.command.CommandType(), name, there, gone)
			}
		}
	}
}
