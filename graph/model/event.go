package model

import (
	"fmt"
	"strconv"

	"github.com/headrace/headrace/internal/eventstore"
)

// EventIDPrefix begins the ids of events among all objects; the position follows.
const EventIDPrefix = "event-"

// Event is a recorded fact as clients see it.
type Event struct {
	eventstore.Event
}

// ID names the event among all objects.
func (e Event) ID() string { return EventIDPrefix + strconv.FormatInt(e.Position, 10) }

// EventID is the event's own UUID.
func (e Event) EventID() string { return e.Event.ID.String() }

// Metadata says on whose behalf and why the event was recorded.
func (e Event) Metadata() (EventMetadata, error) {
	m, err := e.ParseMetadata()
	if err != nil {
		return EventMetadata{}, fmt.Errorf("metadata of the event at position %d: %w", e.Position, err)
	}
	return EventMetadata{
		CommandID:     optional(m.CommandID),
		Actor:         optional(m.Actor),
		Roles:         m.Roles,
		RequestID:     optional(m.RequestID()),
		CorrelationID: optional(m.CorrelationID),
		CausationID:   optional(m.CausationID),
	}, nil
}

// EventMetadata is eventstore's metadata with nil for what is not known.
type EventMetadata struct {
	CommandID, Actor, RequestID, CorrelationID, CausationID *string

	Roles []string // that the actor had then
}

// EventConnection is a page of the log.
type EventConnection struct {
	Page  eventstore.Page
	After int64 // the position that the page follows
}

// EventEdge is an event in a page.
type EventEdge struct {
	Node   Event
	Cursor string
}

// Edges are the events with their positions.
func (c *EventConnection) Edges() []EventEdge {
	edges := make([]EventEdge, len(c.Page.Events))
	for i, e := range c.Page.Events {
		edges[i] = EventEdge{Node: Event{e}, Cursor: strconv.FormatInt(e.Position, 10)}
	}
	return edges
}

// Nodes are the events.
func (c *EventConnection) Nodes() []Event {
	nodes := make([]Event, len(c.Page.Events))
	for i, e := range c.Page.Events {
		nodes[i] = Event{e}
	}
	return nodes
}

// Head is the newest position of the log when the page was read.
func (c *EventConnection) Head() int64 { return c.Page.Head }

// PageInfo says where the page lies. Its end is the position up to which the log was looked at, so that a page without
// events still leads on.
func (c *EventConnection) PageInfo() PageInfo {
	end := strconv.FormatInt(c.Page.ScannedTo, 10)
	info := PageInfo{
		HasNextPage:     c.Page.ScannedTo < c.Page.Head,
		HasPreviousPage: c.After > 0,
		EndCursor:       &end,
	}
	if len(c.Page.Events) > 0 {
		start := strconv.FormatInt(c.Page.Events[0].Position, 10)
		info.StartCursor = &start
	}
	return info
}
