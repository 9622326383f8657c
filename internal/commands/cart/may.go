package cart

import (
	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/identity"
)

// may lets a cart's owner and staff do everything, and nobody open a cart for another. A cart that was never opened has
// no owner, so that a stranger hears the same of it as of another's.
func may(s State, command Command, who identity.Identity) error {
	owner := s.OwnerID
	if c, opens := command.(Open); opens && !s.Opened {
		owner = c.OwnerID
	}
	if who.Is(owner) || who.Has(identity.Staff) {
		return nil
	}
	return commands.Forbidden("only its owner may do this with a cart")
}
