package userview

import (
	"context"

	"github.com/headrace/headrace/internal/queries"
)

// Filter narrows a list of users. The zero value lets all through.
type Filter struct {
	Email  *string  // the whole address; case and surrounding space do not matter
	Status []Status // any of these; none: all

	VisibleTo *string // only what belongs to this subject; see Access
}

// OrderBy is an order of users. The id breaks ties.
type OrderBy string

const (
	RegisteredAtDesc OrderBy = "REGISTERED_AT_DESC" // also what the empty string stands for
	RegisteredAtAsc  OrderBy = "REGISTERED_AT_ASC"
	NameAsc          OrderBy = "NAME_ASC" // by code point
	NameDesc         OrderBy = "NAME_DESC"
)

// Reader reads users under the view's stable name. It is safe for concurrent use.
type Reader struct {
	reads *queries.Reads
	page  queries.PageConfig
}

// NewReader returns a reader over the reads, which it does not close.
func NewReader(reads *queries.Reads, page queries.PageConfig) *Reader {
	return &Reader{reads: reads, page: page}
}

// Get returns a user, or nil when the view knows none of this id.
func (r *Reader) Get(ctx context.Context, id string) (*User, error) {
	return queries.One[User](ctx, r.reads, "read user", sqlByID, id)
}

// GetMany returns the users of these ids in the ids' order, with nil for each that the view does not know.
func (r *Reader) GetMany(ctx context.Context, ids []string) ([]*User, error) {
	return queries.Many(ctx, r.reads, "read users", sqlByIDs, ids, func(u *User) string { return u.ID })
}

// List returns a page of users. A page or an order that cannot be is a *queries.ArgumentError.
func (r *Reader) List(ctx context.Context, f Filter, by OrderBy, page queries.PageArgs) (queries.Slice[User], error) {
	order, err := queries.FindOrder(orders(), string(by))
	if err != nil {
		return queries.Slice[User]{}, err
	}
	return queries.List(ctx, r.reads, r.page, sqlList, f.where(), order, page)
}

// Count returns how many users the filter lets through. It reads them all in the worst case.
func (r *Reader) Count(ctx context.Context, f Filter) (int64, error) {
	return queries.Count(ctx, r.reads, sqlCount, f.where())
}
