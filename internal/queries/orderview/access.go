package orderview

import (
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/queries"
)

// Access shows orders to their owners, and all to staff.
func Access() queries.Access[Order, Filter] {
	return queries.Access[Order, Filter]{
		See: func(who identity.Identity, o *Order) bool { return who.Is(o.OwnerID) || who.Has(identity.Staff) },
		Narrow: func(who identity.Identity, f Filter) Filter {
			if !who.Has(identity.Staff) {
				f.VisibleTo = &who.Subject
			}
			return f
		},
	}
}
