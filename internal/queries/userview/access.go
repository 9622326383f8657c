package userview

import (
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/queries"
)

// Access shows users themselves, and all to staff. A user's id is the subject of the identity.
func Access() queries.Access[User, Filter] {
	return queries.Access[User, Filter]{
		See: func(who identity.Identity, u *User) bool { return who.Is(u.ID) || who.Has(identity.Staff) },
		Narrow: func(who identity.Identity, f Filter) Filter {
			if !who.Has(identity.Staff) {
				f.VisibleTo = &who.Subject
			}
			return f
		},
	}
}
