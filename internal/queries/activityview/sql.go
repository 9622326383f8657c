package activityview

import (
	"slices"
	"strconv"
	"strings"

	"github.com/headrace/headrace/internal/queries"
)

const (
	sqlList = `select position, user_id, stream, type, summary, actor, roles, request_id, recorded_at from activity`

	sqlByPosition  = sqlList + ` where position = $1`
	sqlByPositions = sqlList + ` where position = any($1)`
	sqlCount       = `select count(*) from activity`

	// sqlAdd takes lines as arrays: positions, times, users (null: not said), streams, types, actors, summaries,
	// roles (JSON), requests. A user
	// that is not said is the one that another line of the same stream names, in this batch or before it.
	sqlAdd = `
insert into {table} (position, recorded_at, user_id, stream, type, actor, summary, roles, request_id)
select e.position, e.recorded_at,
       coalesce(e.user_id, max(e.user_id) over (partition by e.stream),
                (select a.user_id from {table} a where a.stream = e.stream order by a.position limit 1), ''),
       e.stream, e.type, e.actor, e.summary, e.roles::jsonb, e.request_id
from unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[])
     as e (position, recorded_at, user_id, stream, type, actor, summary, roles, request_id)
order by e.position`
)

// orders are what List can sort by.
func orders() []queries.Order[Activity] {
	position := func(a Activity) []any { return []any{a.Position} }
	return []queries.Order[Activity]{
		{Name: string(PositionDesc), Columns: []string{"position"}, Desc: true, Key: position},
		{Name: string(PositionAsc), Columns: []string{"position"}, Key: position},
	}
}

func (f Filter) where() queries.Where {
	var w queries.Where
	w.AndOwner("user_id", f.VisibleTo)
	if f.UserID != nil {
		w.And("user_id = $%d", *f.UserID)
	}
	if f.Stream != nil {
		w.And("stream = $%d", *f.Stream)
	}
	w.AndAnyOf("type", f.Types)
	return w
}

// Passes tells whether the filter lets a line through: the same lines as its conditions in SQL, for those who have the line
// already.
func (f Filter) Passes(a Activity) bool {
	return queries.Owns(f.VisibleTo, a.UserID) &&
		(f.UserID == nil || a.UserID == *f.UserID) && (f.Stream == nil || a.Stream == *f.Stream) &&
		(len(f.Types) == 0 || slices.Contains(f.Types, a.Type))
}

// parseID gives the position of an id; only the text that ID writes is one.
func parseID(id string) (int64, bool) {
	digits, ok := strings.CutPrefix(id, idPrefix)
	if !ok {
		return 0, false
	}
	position, err := strconv.ParseInt(digits, 10, 64)
	return position, err == nil && position > 0 && digits == strconv.FormatInt(position, 10)
}
