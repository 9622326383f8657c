package cartview

import (
	"slices"

	"github.com/headrace/headrace/internal/queries"
)

const (
	sqlList = `select id, owner_id, status, currency, items, total, order_id, version, position, opened_at, updated_at from cart`

	sqlByID  = sqlList + ` where id = $1`
	sqlByIDs = sqlList + ` where id = any($1)`
	sqlCount = `select count(*) from cart`
)

// orders are what List can sort by; each has its index. There is none by the time of the last change: an index on
// what every event changes would make each write of a cart several times dearer.
func orders() []queries.Order[Cart] {
	openedAt := func(c Cart) []any { return []any{c.OpenedAt, c.ID} }
	columns := []string{"opened_at", "id"}
	return []queries.Order[Cart]{
		{Name: string(OpenedAtDesc), Columns: columns, Desc: true, Key: openedAt},
		{Name: string(OpenedAtAsc), Columns: columns, Key: openedAt},
	}
}

func (f Filter) where() queries.Where {
	var w queries.Where
	w.AndOwner("owner_id", f.VisibleTo)
	if f.OwnerID != nil {
		w.And("owner_id = $%d", *f.OwnerID)
	}
	w.AndAnyOf("status", queries.Strings(f.Status))
	return w
}

// Passes tells whether the filter lets a row through: the same rows as its conditions in SQL, for those who have the row
// already.
func (f Filter) Passes(c Cart) bool {
	return queries.Owns(f.VisibleTo, c.OwnerID) &&
		(f.OwnerID == nil || c.OwnerID == *f.OwnerID) &&
		(len(f.Status) == 0 || slices.Contains(f.Status, c.Status))
}
