package fulfilmentview

import (
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/queries"
)

// Access shows fulfilments to the owners of their orders, and all to staff. There is no list of them to narrow.
func Access() queries.Access[Fulfilment, struct{}] {
	return queries.Access[Fulfilment, struct{}]{
		See: func(who identity.Identity, f *Fulfilment) bool { return who.Is(f.OwnerID) || who.Has(identity.Staff) },
	}
}
