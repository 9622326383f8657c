package model

import (
	"context"

	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/activityview"
	"github.com/headrace/headrace/internal/queries/cartview"
	"github.com/headrace/headrace/internal/queries/orderview"
	"github.com/headrace/headrace/internal/queries/userview"
)

// Node is any object with an id of its own.
type Node any

// PageInfo says where a page lies in its list.
type PageInfo struct {
	HasNextPage     bool
	HasPreviousPage bool
	StartCursor     *string
	EndCursor       *string
}

// Connection is a page of rows.
type Connection[R any] struct {
	slice queries.Slice[R]
	count func(ctx context.Context) (int64, error)
}

// NewConnection shows a slice as a page. count is called only when the total is selected.
func NewConnection[R any](slice queries.Slice[R], count func(ctx context.Context) (int64, error)) *Connection[R] {
	return &Connection[R]{slice: slice, count: count}
}

// Edge is a row in a page.
type Edge[R any] struct {
	Node   R
	Cursor string
}

// Edges are the rows with their cursors.
func (c *Connection[R]) Edges() []Edge[R] {
	edges := make([]Edge[R], len(c.slice.Rows))
	for i, row := range c.slice.Rows {
		edges[i] = Edge[R]{Node: row, Cursor: c.slice.Cursors[i]}
	}
	return edges
}

// Nodes are the rows.
func (c *Connection[R]) Nodes() []R { return c.slice.Rows }

// PageInfo says where the page lies in its list.
func (c *Connection[R]) PageInfo() PageInfo { return pageInfo(c.slice) }

func pageInfo[R any](slice queries.Slice[R]) PageInfo {
	info := PageInfo{HasNextPage: slice.HasNext, HasPreviousPage: slice.HasPrevious}
	if n := len(slice.Cursors); n > 0 {
		info.StartCursor, info.EndCursor = &slice.Cursors[0], &slice.Cursors[n-1]
	}
	return info
}

// TotalCount is how many rows the list has on all pages.
func (c *Connection[R]) TotalCount(ctx context.Context) (int64, error) { return c.count(ctx) }

// The pages and their edges by the names of the schema.
type (
	CartConnection     = Connection[cartview.Cart]
	CartEdge           = Edge[cartview.Cart]
	OrderConnection    = Connection[orderview.Order]
	OrderEdge          = Edge[orderview.Order]
	UserConnection     = Connection[userview.User]
	UserEdge           = Edge[userview.User]
	ActivityConnection = Connection[activityview.Activity]
	ActivityEdge       = Edge[activityview.Activity]
)
