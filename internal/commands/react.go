package commands

import (
	"encoding/json"
	"time"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

// React is the call of a policy's command in answer to an event. Its command id is made of the policy's name and the
// event's id, so that the same event again has no second effect. A policy with more than one command for an event adds
// something to the id of each. It is carried out only in the history in which the event was found.
func React(policy string, e eventstore.Event) Call {
	call := Call{
		CommandID:   policy + ":" + e.ID.String(),
		Who:         identity.System(identity.SystemPrefix + policy),
		CausationID: e.ID.String(),
		Epoch:       e.Epoch,
	}
	// A command must not fail for want of a note on what the event's own command belonged to.
	if metadata, err := e.ParseMetadata(); err == nil {
		call.CorrelationID, call.Trace = metadata.CorrelationID, metadata.Trace
	}
	return call
}

// Deadline is what a stream asks to be told after a while: the payload of a message that Effects sends and whoever receives
// it answers with a command on the stream. It comes at least once and may come late, when what it was for is long done; the
// decider then answers with no events.
type Deadline struct {
	Stream string `json:"stream"`
	Name   string `json:"name"` // of what was to be done by then
}

// Message is the deadline as a message on the topic, due after a while.
func (d Deadline) Message(topic string, after time.Duration) eventstore.Message {
	payload, err := json.Marshal(d)
	if err != nil {
		panic(err) // a struct of strings always encodes
	}
	return eventstore.Message{Topic: topic, Key: d.Stream, Payload: payload, Delay: after}
}
