package queries

import "github.com/headrace/headrace/internal/identity"

// Access says who may see the rows of a view. A view declares it beside its reader; who reads for a client asks it for
// every row that goes out. The zero value shows nobody anything.
type Access[R, F any] struct {
	// See reports whether somebody may see a row. It is pure, and asked again whenever the row changed.
	See func(who identity.Identity, row *R) bool
	// Narrow adds to a filter what lets through only the rows that See does, so that pages are full and totals right.
	Narrow func(who identity.Identity, filter F) F
}
