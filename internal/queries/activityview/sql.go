package activityview

import (
	"strconv"
	"strings"

	"github.com/headrace/headrace/internal/queries"
)

const (
	sqlList = `select position, user_id, stream, type, summary, actor, recorded_at from activity`

	sqlByPosition  = sqlList + ` where position = $1`
	sqlByPositions = sqlList + ` where position = any($1)`
	sqlCount       = `select count(*) from activity`
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
	if f.UserID != nil {
		w.And("user_id = $%d", *f.UserID)
	}
	if f.Stream != nil {
		w.And("stream = $%d", *f.Stream)
	}
	w.AndAnyOf("type", f.Types)
	return w
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
