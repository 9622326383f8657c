package userview

import "github.com/headrace/headrace/internal/queries"

const (
	sqlList = `select id, email, email_key, name, status, version, position, registered_at, updated_at from "user"`

	sqlByID  = sqlList + ` where id = $1`
	sqlByIDs = sqlList + ` where id = any($1)`
	sqlCount = `select count(*) from "user"`
)

// orders are what List can sort by; each has its index.
func orders() []queries.Order[User] {
	registeredAt := func(u User) []any { return []any{u.RegisteredAt, u.ID} }
	name := func(u User) []any { return []any{u.Name, u.ID} }
	return []queries.Order[User]{
		{Name: string(RegisteredAtDesc), Columns: []string{"registered_at", "id"}, Desc: true, Key: registeredAt},
		{Name: string(RegisteredAtAsc), Columns: []string{"registered_at", "id"}, Key: registeredAt},
		{Name: string(NameAsc), Columns: []string{"name", "id"}, Key: name},
		{Name: string(NameDesc), Columns: []string{"name", "id"}, Desc: true, Key: name},
	}
}

func (f Filter) where() queries.Where {
	var w queries.Where
	w.AndOwner("id", f.VisibleTo)
	if f.Email != nil {
		w.And("email_key = $%d", emailKey(*f.Email))
	}
	w.AndAnyOf("status", queries.Strings(f.Status))
	return w
}
