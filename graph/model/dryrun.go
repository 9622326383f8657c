package model

import (
	"encoding/json"
	"time"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
)

// DryRun says what a command would do.
type DryRun struct {
	AsOf      int64 // the position of the log that it was judged on
	Version   int64 // that its stream would have
	Events    []WouldBeEvent
	Duplicate *Receipt // nil when its id is new
	Claims    []string
	Releases  []string
	Messages  []WouldBeMessage
}

// NewDryRun shows a dry run to clients.
func NewDryRun(d commands.DryRun) *DryRun {
	out := &DryRun{
		AsOf: d.AsOf, Version: d.Version(), Claims: d.Claim, Releases: d.Release,
		Events: make([]WouldBeEvent, len(d.Events)), Messages: make([]WouldBeMessage, len(d.Messages)),
	}
	for i, e := range d.Events {
		out.Events[i] = WouldBeEvent{e}
	}
	for i, m := range d.Messages {
		out.Messages[i] = WouldBeMessage{m.Topic, m.Key, m.Payload, m.Delay}
	}
	if d.Duplicate != nil {
		out.Duplicate = NewReceipt(*d.Duplicate)
	}
	return out
}

// WouldBeEvent is an event that was not recorded.
type WouldBeEvent struct{ eventstore.Event }

// WouldBeMessage is a message that was not sent.
type WouldBeMessage struct {
	Topic, Key string
	Payload    json.RawMessage
	Delay      time.Duration
}
