package order

import (
	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/identity"
)

// may lets an order's owner pay and cancel it, and staff do what the shop does as well. Orders are placed, and cancelled
// for want of payment, by the program alone. An order that was never placed has no owner, so that a stranger hears the
// same of it as of another's.
func may(s State, command Command, who identity.Identity) error {
	switch command.(type) {
	case Place, CancelUnpaid:
		if who.Unrestricted() {
			return nil
		}
		return commands.Forbidden("only the shop itself does this with an order")
	case Pay, Cancel:
		if who.Is(s.OwnerID) || who.Has(identity.Staff) {
			return nil
		}
		return commands.Forbidden("only its owner may do this with an order")
	case Ship, Deliver, Refund:
		if who.Has(identity.Staff) {
			return nil
		}
		return commands.Forbidden("only staff may do this with an order")
	}
	return commands.Forbidden("nobody may do this with an order") // nothing that was forgotten above is allowed
}
