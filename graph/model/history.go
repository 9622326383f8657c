package model

import (
	"context"
	"sync"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// OnTimeout is what to do when a read model does not include in time what was asked for.
type OnTimeout string

// The kinds of OnTimeout.
const (
	OnTimeoutError OnTimeout = "ERROR" // the field fails
	OnTimeoutStale OnTimeout = "STALE" // it answers as it is, and the response says so
)

// States gives an object after each of some of its events, which are a run of one stream: a nil Node where there is none.
type States func(ctx context.Context, events []eventstore.Event) ([]Node, error)

// HistoryConnection is a page of the events that made an object.
type HistoryConnection struct {
	page    queries.Slice[eventstore.Event]
	version int64

	states States
	fold   sync.Once // for all entries of the page
	folded []Node
	err    error
}

// NewHistory shows a page of an object's events. states is called once, when a state is selected.
func NewHistory(page queries.Slice[eventstore.Event], version int64, states States) *HistoryConnection {
	return &HistoryConnection{page: page, version: version, states: states}
}

// HistoryEdge is an event in a page.
type HistoryEdge struct {
	Node   HistoryEntry
	Cursor string
}

// Edges are the events with their cursors.
func (c *HistoryConnection) Edges() []HistoryEdge {
	edges := make([]HistoryEdge, len(c.page.Rows))
	for i, entry := range c.Nodes() {
		edges[i] = HistoryEdge{Node: entry, Cursor: c.page.Cursors[i]}
	}
	return edges
}

// Nodes are the events.
func (c *HistoryConnection) Nodes() []HistoryEntry {
	nodes := make([]HistoryEntry, len(c.page.Rows))
	for i, e := range c.page.Rows {
		nodes[i] = HistoryEntry{Event: Event{e}, place: i, page: c}
	}
	return nodes
}

// PageInfo says where the page lies.
func (c *HistoryConnection) PageInfo() PageInfo { return pageInfo(c.page) }

// TotalCount is how many events the object has.
func (c *HistoryConnection) TotalCount() int64 { return c.version }

// HistoryEntry is an event that made an object.
type HistoryEntry struct {
	Event
	place int
	page  *HistoryConnection
}

// Actor is on whose behalf it was recorded; nil when that is not known.
func (e HistoryEntry) Actor() (*string, error) {
	m, err := e.Metadata()
	return m.Actor, err
}

// CommandID names the command that it came from.
func (e HistoryEntry) CommandID() (*string, error) {
	m, err := e.Metadata()
	return m.CommandID, err
}

// CorrelationID names the request or process that it belongs to.
func (e HistoryEntry) CorrelationID() (*string, error) {
	m, err := e.Metadata()
	return m.CorrelationID, err
}

// CausationID names the event or message that led to the command.
func (e HistoryEntry) CausationID() (*string, error) {
	m, err := e.Metadata()
	return m.CausationID, err
}

// State is the object after the event. The first entry that is asked folds for all of its page.
func (e HistoryEntry) State(ctx context.Context) (Node, error) {
	c := e.page
	c.fold.Do(func() { c.folded, c.err = c.states(ctx, c.page.Rows) })
	if c.err != nil {
		return nil, c.err
	}
	return c.folded[e.place], nil
}
