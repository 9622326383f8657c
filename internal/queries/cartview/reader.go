package cartview

import (
	"context"

	"github.com/headrace/headrace/internal/queries"
)

// Filter narrows a list of carts. The zero value lets all through.
type Filter struct {
	OwnerID *string
	Status  []Status // any of these; none: all

	VisibleTo *string // only what belongs to this subject; see Access
}

// OrderBy is an order of carts. The id breaks ties.
type OrderBy string

const (
	OpenedAtDesc OrderBy = "OPENED_AT_DESC" // also what the empty string stands for
	OpenedAtAsc  OrderBy = "OPENED_AT_ASC"
)

// Reader reads carts under the view's stable name. It is safe for concurrent use.
type Reader struct {
	reads *queries.Reads
	page  queries.PageConfig
}

// NewReader returns a reader over the reads, which it does not close.
func NewReader(reads *queries.Reads, page queries.PageConfig) *Reader {
	return &Reader{reads: reads, page: page}
}

// Get returns a cart, or nil when the view knows none of this id.
func (r *Reader) Get(ctx context.Context, id string) (*Cart, error) {
	return queries.One[Cart](ctx, r.reads, "read cart", sqlByID, id)
}

// GetMany returns the carts of these ids in the ids' order, with nil for each that the view does not know.
func (r *Reader) GetMany(ctx context.Context, ids []string) ([]*Cart, error) {
	return queries.Many(ctx, r.reads, "read carts", sqlByIDs, ids, func(c *Cart) string { return c.ID })
}

// List returns a page of carts. A page or an order that cannot be is a *queries.ArgumentError.
func (r *Reader) List(ctx context.Context, f Filter, by OrderBy, page queries.PageArgs) (queries.Slice[Cart], error) {
	order, err := queries.FindOrder(orders(), string(by))
	if err != nil {
		return queries.Slice[Cart]{}, err
	}
	return queries.List(ctx, r.reads, r.page, sqlList, f.where(), order, page)
}

// Part returns up to first carts of the whole list that the filter lets through, from its beginning or after a cursor. It is
// for those who read all of it: nothing that changes moves a row from one part to another.
func (r *Reader) Part(ctx context.Context, f Filter, first int, after *string) (queries.Slice[Cart], error) {
	cfg, page := queries.PageConfig{Max: first}, queries.PageArgs{First: &first, After: after}
	return queries.List(ctx, r.reads, cfg, sqlList, f.where(), orders()[0], page)
}

// Count returns how many carts the filter lets through. It reads them all in the worst case.
func (r *Reader) Count(ctx context.Context, f Filter) (int64, error) {
	return queries.Count(ctx, r.reads, sqlCount, f.where())
}
