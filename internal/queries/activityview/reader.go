package activityview

import (
	"context"

	"github.com/headrace/headrace/internal/queries"
)

// Filter narrows a list of activities. The zero value lets all through.
type Filter struct {
	UserID *string
	Stream *string
	Types  []string // any of these event types; none: all

	VisibleTo *string // only what belongs to this subject; see Access
}

// OrderBy is an order of activities.
type OrderBy string

const (
	PositionDesc OrderBy = "POSITION_DESC" // newest first; also what the empty string stands for
	PositionAsc  OrderBy = "POSITION_ASC"
)

// Reader reads activities under the view's stable name. It is safe for concurrent use.
type Reader struct {
	reads *queries.Reads
	page  queries.PageConfig
}

// NewReader returns a reader over the reads, which it does not close.
func NewReader(reads *queries.Reads, page queries.PageConfig) *Reader {
	return &Reader{reads: reads, page: page}
}

// Get returns the activity of an id as Activity.ID gives it, or nil when there is none.
func (r *Reader) Get(ctx context.Context, id string) (*Activity, error) {
	position, ok := parseID(id)
	if !ok {
		return nil, nil
	}
	return queries.One[Activity](ctx, r.reads, "read activity", sqlByPosition, position)
}

// GetMany returns the activities of these ids in the ids' order, with nil for each that is not there.
func (r *Reader) GetMany(ctx context.Context, ids []string) ([]*Activity, error) {
	positions := make([]int64, len(ids))
	for i, id := range ids {
		positions[i], _ = parseID(id)
	}
	return queries.Many(ctx, r.reads, "read activities", sqlByPositions, positions, func(a *Activity) int64 { return a.Position })
}

// List returns a page of activities. A page or an order that cannot be is a *queries.ArgumentError.
func (r *Reader) List(ctx context.Context, f Filter, by OrderBy, page queries.PageArgs) (queries.Slice[Activity], error) {
	order, err := queries.FindOrder(orders(), string(by))
	if err != nil {
		return queries.Slice[Activity]{}, err
	}
	return queries.List(ctx, r.reads, r.page, sqlList, f.where(), order, page)
}

// Since returns up to limit activities after a position of the log, oldest first: what a live subscriber reads when
// queries.Feed says that the view moved. Limit 0 stands for 100.
func (r *Reader) Since(ctx context.Context, f Filter, after int64, limit int) ([]Activity, error) {
	if limit <= 0 {
		limit = 100
	}
	return queries.Since[Activity](ctx, r.reads, sqlList, f.where(), "position", after, limit)
}

// Count returns how many activities the filter lets through. It reads them all in the worst case.
func (r *Reader) Count(ctx context.Context, f Filter) (int64, error) {
	return queries.Count(ctx, r.reads, sqlCount, f.where())
}
