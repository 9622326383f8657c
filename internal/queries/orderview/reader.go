package orderview

import (
	"context"

	"github.com/headrace/headrace/internal/queries"
)

// Filter narrows a list of orders. The zero value lets all through.
type Filter struct {
	OwnerID *string
	CartID  *string
	Status  []Status // any of these; none: all

	VisibleTo *string // only what belongs to this subject; see Access
}

// OrderBy is an order of orders. The id breaks ties.
type OrderBy string

const (
	PlacedAtDesc  OrderBy = "PLACED_AT_DESC" // also what the empty string stands for
	PlacedAtAsc   OrderBy = "PLACED_AT_ASC"
	UpdatedAtDesc OrderBy = "UPDATED_AT_DESC"
	UpdatedAtAsc  OrderBy = "UPDATED_AT_ASC"
	TotalDesc     OrderBy = "TOTAL_DESC" // minor units, whatever the currency
	TotalAsc      OrderBy = "TOTAL_ASC"
)

// Reader reads orders under the view's stable name. It is safe for concurrent use.
type Reader struct {
	reads *queries.Reads
	page  queries.PageConfig
}

// NewReader returns a reader over the reads, which it does not close.
func NewReader(reads *queries.Reads, page queries.PageConfig) *Reader {
	return &Reader{reads: reads, page: page}
}

// Get returns an order, or nil when the view knows none of this id.
func (r *Reader) Get(ctx context.Context, id string) (*Order, error) {
	return queries.One[Order](ctx, r.reads, "read order", sqlByID, id)
}

// GetMany returns the orders of these ids in the ids' order, with nil for each that the view does not know.
func (r *Reader) GetMany(ctx context.Context, ids []string) ([]*Order, error) {
	return queries.Many(ctx, r.reads, "read orders", sqlByIDs, ids, func(o *Order) string { return o.ID })
}

// List returns a page of orders. A page or an order that cannot be is a *queries.ArgumentError.
func (r *Reader) List(ctx context.Context, f Filter, by OrderBy, page queries.PageArgs) (queries.Slice[Order], error) {
	order, err := queries.FindOrder(orders(), string(by))
	if err != nil {
		return queries.Slice[Order]{}, err
	}
	return queries.List(ctx, r.reads, r.page, sqlList, f.where(), order, page)
}

// Part returns up to first orders of the whole list that the filter lets through, from its beginning or after a cursor. It is
// for those who read all of it: nothing that changes moves a row from one part to another.
func (r *Reader) Part(ctx context.Context, f Filter, first int, after *string) (queries.Slice[Order], error) {
	cfg, page := queries.PageConfig{Max: first}, queries.PageArgs{First: &first, After: after}
	return queries.List(ctx, r.reads, cfg, sqlList, f.where(), orders()[0], page)
}

// Count returns how many orders the filter lets through. It reads them all in the worst case.
func (r *Reader) Count(ctx context.Context, f Filter) (int64, error) {
	return queries.Count(ctx, r.reads, sqlCount, f.where())
}
