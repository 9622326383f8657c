package activityview

import (
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/queries"
)

// Access shows activities to the user whom they concern, whoever acted, and all to staff.
func Access() queries.Access[Activity, Filter] {
	return queries.Access[Activity, Filter]{
		See: func(who identity.Identity, a *Activity) bool { return who.Is(a.UserID) || who.Has(identity.Staff) },
		Narrow: func(who identity.Identity, f Filter) Filter {
			if !who.Has(identity.Staff) {
				f.VisibleTo = &who.Subject
			}
			return f
		},
	}
}
