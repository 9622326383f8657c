package orderview

import (
	"slices"

	"github.com/headrace/headrace/internal/queries"
)

const (
	sqlList = `select id, cart_id, owner_id, status, currency, items, total, payment_reference, tracking_code, reason,
	version, position, placed_at, updated_at from "order"`

	sqlByID  = sqlList + ` where id = $1`
	sqlByIDs = sqlList + ` where id = any($1)`
	sqlCount = `select count(*) from "order"`
)

// orders are what List can sort by; each has its index.
func orders() []queries.Order[Order] {
	placedAt := func(o Order) []any { return []any{o.PlacedAt, o.ID} }
	updatedAt := func(o Order) []any { return []any{o.UpdatedAt, o.ID} }
	total := func(o Order) []any { return []any{o.TotalAmount, o.ID} }
	return []queries.Order[Order]{
		{Name: string(PlacedAtDesc), Columns: []string{"placed_at", "id"}, Desc: true, Key: placedAt},
		{Name: string(PlacedAtAsc), Columns: []string{"placed_at", "id"}, Key: placedAt},
		{Name: string(UpdatedAtDesc), Columns: []string{"updated_at", "id"}, Desc: true, Key: updatedAt},
		{Name: string(UpdatedAtAsc), Columns: []string{"updated_at", "id"}, Key: updatedAt},
		{Name: string(TotalDesc), Columns: []string{"total", "id"}, Desc: true, Key: total},
		{Name: string(TotalAsc), Columns: []string{"total", "id"}, Key: total},
	}
}

func (f Filter) where() queries.Where {
	var w queries.Where
	w.AndOwner("owner_id", f.VisibleTo)
	if f.OwnerID != nil {
		w.And("owner_id = $%d", *f.OwnerID)
	}
	if f.CartID != nil {
		w.And("cart_id = $%d", *f.CartID)
	}
	w.AndAnyOf("status", queries.Strings(f.Status))
	return w
}

// Passes tells whether the filter lets a row through: the same rows as its conditions in SQL, for those who have the row
// already.
func (f Filter) Passes(o Order) bool {
	return queries.Owns(f.VisibleTo, o.OwnerID) &&
		(f.OwnerID == nil || o.OwnerID == *f.OwnerID) && (f.CartID == nil || o.CartID == *f.CartID) &&
		(len(f.Status) == 0 || slices.Contains(f.Status, o.Status))
}
