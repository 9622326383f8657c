package cart_test

import (
	"testing"

	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/identity"
)

func TestWhoMayDoWhatWithACart(t *testing.T) {
	t.Parallel()
	ada, eve := identity.Identity{Subject: "ada"}, identity.Identity{Subject: "eve", Roles: []string{"customer"}}
	clerk := identity.Identity{Subject: "clerk", Roles: []string{identity.Staff}}
	for _, command := range []cart.Command{
		cart.AddItem(added("ink", 1)),
		cart.ChangeQuantity{SKU: "pen", Quantity: 5},
		cart.RemoveItem{SKU: "pen"},
		cart.CheckOut{},
		cart.Abandon{},
	} {
		carts := given(opened, added("pen", 2))
		for name, who := range map[string]identity.Identity{"the owner": ada, "staff": clerk, "the program": identity.System("policy:x")} {
			if effects := carts.As(who).When(command).Effects(t); len(effects.Claim) > 0 {
				t.Errorf("%s, %s: %+v", command.CommandType(), name, effects)
			}
		}
		// A cart of another and one that is not there are the same to a stranger; also one that is closed.
		for name, who := range map[string]identity.Identity{"a stranger": eve, "nobody": {}} {
			other := carts.As(who).When(command).ThenForbidden(t)
			none := given().As(who).When(command).ThenForbidden(t)
			closed := given(opened, cart.Abandoned{}).As(who).When(command).ThenForbidden(t)
			if *other != *none || *other != *closed {
				t.Errorf("%s, %s: %v, %v, %v", command.CommandType(), name, other, none, closed)
			}
		}
		given().As(clerk).When(command).ThenRejected(t, cart.CodeNotFound)
	}
}

func TestACartIsOpenedForOneself(t *testing.T) {
	t.Parallel()
	open := cart.Open{OwnerID: "ada", Currency: "EUR"}
	ada, eve := identity.Identity{Subject: "ada"}, identity.Identity{Subject: "eve"}
	clerk := identity.Identity{Subject: "clerk", Roles: []string{identity.Staff}}
	given().As(ada).When(open).Then(t, opened)
	given().As(clerk).When(open).Then(t, opened)
	given().As(eve).When(open).ThenForbidden(t)
	given().As(identity.Identity{}).When(open).ThenForbidden(t)
	given().As(identity.Identity{}).When(cart.Open{Currency: "EUR"}).ThenForbidden(t)
	given(cart.Opened{OwnerID: "eve", Currency: "EUR"}).As(ada).When(open).ThenForbidden(t)
}
