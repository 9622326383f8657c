package eventstore

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Payload is the content of an event: a value struct of the domain that encodes to JSON.
type Payload interface {
	// EventType is the name under which the event is stored for ever, as noun.past_tense: "cart.item_added".
	EventType() string
}

// Event is a recorded fact. Its slices may share memory with other events of the same page and must not be changed.
type Event struct {
	Position      int64     // place in the log: 1, 2, 3, … without holes, in commit order
	Version       int64     // place in its stream: 1, 2, 3, … without holes
	RecordedAt    time.Time // the database's clock; never goes back along the log
	ID            uuid.UUID
	Stream        string
	Type          string
	SchemaVersion int             // the shape of Data; the registry's upcasters raise older ones
	Data          json.RawMessage // equal as JSON to what was appended, not byte for byte
	Metadata      json.RawMessage // a Metadata object; see ParseMetadata

	// Epoch is that of the log in which whoever reacts to the event has found it. 0: nobody says.
	Epoch int32
}

// Metadata says on whose behalf and why an event was recorded.
type Metadata struct {
	CommandID     string   `json:"commandId,omitempty"`
	Actor         string   `json:"actor,omitempty"`
	Roles         []string `json:"roles,omitempty"`         // that the actor had then
	CorrelationID string   `json:"correlationId,omitempty"` // the request or process that all this belongs to
	CausationID   string   `json:"causationId,omitempty"`   // the event or message that led to this command
	Trace
}

// Trace is the W3C trace context of the request that all this belongs to, in the form of its two headers. It is empty
// when the request had none.
type Trace struct {
	Parent string `json:"traceparent,omitempty"`
	State  string `json:"tracestate,omitempty"`
}

// RequestID is the request by which the command came: the correlation id, unless another event or a message led to it.
func (m Metadata) RequestID() string {
	if m.CausationID != "" {
		return ""
	}
	return m.CorrelationID
}

// ParseMetadata decodes the metadata of an event.
func (e Event) ParseMetadata() (Metadata, error) {
	var m Metadata
	err := json.Unmarshal(e.Metadata, &m)
	return m, err
}

// ExpectedVersion is what a request says of the stream it appends to: a version (Exact), or one of the constants.
// The zero value is NoStream, so that a forgotten expectation refuses and never overwrites.
type ExpectedVersion int64

const (
	NoStream     ExpectedVersion = 0  // the stream has no event yet
	StreamExists ExpectedVersion = -1 // the stream has at least one event
	Any          ExpectedVersion = -2 // whatever the stream's version is
)

// Exact expects the stream to be at this version. Exact(0) is NoStream.
func Exact(version int64) ExpectedVersion { return ExpectedVersion(version) }

// Request is what one Append writes, whole or not at all.
type Request struct {
	Stream   string // the command's own stream, which the receipt names
	Expected ExpectedVersion
	Events   []Payload // none is allowed when a CommandID, messages or claims are to be stored
	Metadata Metadata  // of all events of the request

	Also     []StreamAppend // further streams, accepted or refused together with the first
	Claim    []string       // unique keys that Stream takes, such as "user.email:ada@example.org"
	Release  []string       // unique keys that Stream gives back; a key in both lists stays as it is
	Messages []Message      // work for outside, delivered by the outbox after the commit

	CommandID CommandID // the zero value: the request is not idempotent

	// Epoch is what Store.Epoch said before the state was read on which this was decided: the request is refused with a
	// *HistoryError when the log has a newer one. 0: it was decided on nothing that was read.
	Epoch int32
}

// StreamAppend is a further stream of a request.
type StreamAppend struct {
	Stream   string
	Expected ExpectedVersion
	Events   []Payload
}

// CommandID makes an append idempotent: the same actor and id again has no second effect and yields the first receipt.
type CommandID struct {
	Actor string
	ID    string   // empty: not idempotent
	Hash  [32]byte // of the command's type and input; the same id with another hash is refused with CommandIDReusedError
}

// Message is work for outside, stored in the transaction of the append and delivered at least once, in no order.
type Message struct {
	ID      uuid.UUID // receivers dedupe by it; made when zero
	Topic   string
	Key     string
	Payload json.RawMessage
	Headers map[string]string
	Delay   time.Duration // due this long after the commit, by the database's clock
}

// Receipt is the answer to an append.
type Receipt struct {
	CommandID string // as requested; may be empty
	Stream    string // the command's own stream
	Version   int64  // of Stream after the append
	Token     Token  // stands for everything up to and including the request's last event
	Duplicate bool   // the effect is that of an earlier append with the same CommandID
}

// Position is that of the last event of the request, or the head of the log when it had none.
func (r Receipt) Position() int64 { return r.Token.Position }

// Token names a point of one history of one log: what it was issued for and everything before it. Its text form is
// opaque to clients. The zero Token stands for the empty log and is included in every state.
type Token struct {
	LogID    uuid.UUID
	Epoch    int32 // raised when a restore or a failover may have replaced the end of the log
	Position int64
	EventID  uuid.UUID // the event at Position; tells another history from this one
}
