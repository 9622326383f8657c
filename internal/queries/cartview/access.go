package cartview

import (
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/queries"
)

// Access shows carts to their owners, and all to staff.
func Access() queries.Access[Cart, Filter] {
	return queries.Access[Cart, Filter]{
		See: func(who identity.Identity, c *Cart) bool { return who.Is(c.OwnerID) || who.Has(identity.Staff) },
		Narrow: func(who identity.Identity, f Filter) Filter {
			if !who.Has(identity.Staff) {
				f.VisibleTo = &who.Subject
			}
			return f
		},
	}
}
