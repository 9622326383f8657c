package outbox

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
)

// Metadata of a message that carries one event, beside MetaKey, which is its stream. The message's UUID is the event's id,
// by which receivers dedupe; positions grow within a stream, and along the topic if that keeps order.
const (
	MetaType     = "type"     // of the event
	MetaPosition = "position" // of the event in the log
)

// PublicEvent is the JSON of a message that carries one event.
type PublicEvent struct {
	ID            uuid.UUID       `json:"id"`
	Stream        string          `json:"stream"`
	Version       int64           `json:"version"`
	Position      int64           `json:"position"`
	Type          string          `json:"type"`
	SchemaVersion int             `json:"schemaVersion"`
	RecordedAt    time.Time       `json:"recordedAt"`
	Data          json.RawMessage `json:"data,omitempty"`
	Metadata      json.RawMessage `json:"metadata,omitempty"`
	// Omitted says that data and metadata are left out, because the broker does not take messages of that size.
	Omitted bool `json:"omitted,omitempty"`
}

// eventMessages makes a message of each event.
func eventMessages(run Run) []*message.Message {
	messages := make([]*message.Message, len(run.Events))
	for i := range run.Events {
		e := &run.Events[i]
		msg := message.NewMessage(e.ID.String(), publicEvent(e, false))
		msg.Metadata.Set(MetaKey, e.Stream)
		msg.Metadata.Set(MetaType, e.Type)
		msg.Metadata.Set(MetaPosition, strconv.FormatInt(e.Position, 10))
		msg.Metadata.Set(MetaLogID, run.LogID.String())
		messages[i] = msg
	}
	return messages
}

func publicEvent(e *eventstore.Event, omit bool) []byte {
	public := PublicEvent{
		ID: e.ID, Stream: e.Stream, Version: e.Version, Position: e.Position, Type: e.Type, SchemaVersion: e.SchemaVersion,
		RecordedAt: e.RecordedAt.UTC(), Data: json.RawMessage(e.Data), Metadata: json.RawMessage(e.Metadata), Omitted: omit,
	}
	if omit {
		public.Data, public.Metadata = nil, nil
	}
	// What comes from the log is JSON, since its columns are.
	payload, _ := json.Marshal(public)
	return payload
}
