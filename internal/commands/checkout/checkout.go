// Package checkout is the policy that turns a checked-out cart into an order. It is pure: who runs it hands it each
// cart.CheckedOut and gives what comes out to the orders' handler, as often as it likes. The order's id comes from the
// cart's and the command's id from the event's, so that one cart becomes one order.
package checkout

import (
	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/eventstore"
)

// Name is the policy's, under which it acts and keeps its place in the log.
const Name = "checkout"

// Place is the command that the event leads to, for Handle on the returned stream. Handle and not Create: when the
// policy comes to the same event long after the receipt of the first time is gone, the order itself answers that it was
// placed.
func Place(e eventstore.Event, p cart.CheckedOut) (orderStream string, cmd order.Place, call commands.Call) {
	items := make([]order.Item, len(p.Items))
	for i, item := range p.Items {
		items[i] = order.Item(item)
	}
	return p.OrderID, order.Place{CartID: e.Stream, OwnerID: p.OwnerID, Items: items, Total: p.Total}, commands.React(Name, e)
}
