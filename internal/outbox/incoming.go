package outbox

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
)

// MetaPlace is set by a broker's adapter on a message that carries no id of its own: its UUID is then the place that the
// broker gave it, which is another one when the same message is published again.
const MetaPlace = "place"

// MaxIncomingIDBytes bounds the id of a message from outside, with which its commands are named.
const MaxIncomingIDBytes = 180

// Incoming is a message of others.
type Incoming struct {
	Topic string
	// ID tells the message from all others of its topic: of a CloudEvent its source and its id with # in between, else
	// the id that came with it.
	ID string
	// Data is the content: what is in a CloudEvent, else the payload.
	Data []byte
	// Type of a CloudEvent; empty for other messages.
	Type string
	// Payload and Headers are what came, as it came.
	Payload    []byte
	Headers    map[string]string
	Attempt    int // 1 at the first
	ReceivedAt time.Time
}

// cloudEvent is what is read of one; the rest is for the handler.
type cloudEvent struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Source      string          `json:"source"`
	Type        string          `json:"type"`
	Data        json.RawMessage `json:"data"`
	Base64      *string         `json:"data_base64"`
}

// readCloudEvent reads a CloudEvent in either of its modes: structured, when the payload is one, or binary, when the
// headers are. False: it is none.
func readCloudEvent(payload []byte, headers map[string]string) (e cloudEvent, data []byte, is bool, err error) {
	attribute := func(name string) string {
		for _, prefix := range []string{"ce_", "ce-", "Ce-", "CE-"} { // Kafka's, HTTP's and so NATS's
			if value := headers[prefix+name]; value != "" {
				return value
			}
		}
		return ""
	}
	if e.SpecVersion = attribute("specversion"); e.SpecVersion != "" {
		e.ID, e.Source, e.Type = attribute("id"), attribute("source"), attribute("type")
		return e, payload, true, e.check()
	}
	kind := headers["content-type"] + headers["Content-Type"] + headers["contentType"]
	declared := strings.HasPrefix(strings.ToLower(kind), "application/cloudevents")
	if err := json.Unmarshal(payload, &e); err != nil {
		if declared {
			return e, nil, true, fmt.Errorf("the CloudEvent cannot be read: %w", err)
		}
		return cloudEvent{}, payload, false, nil
	}
	if e.SpecVersion == "" && !declared {
		return cloudEvent{}, payload, false, nil
	}
	data = e.Data
	if e.Base64 != nil {
		if data, err = base64.StdEncoding.DecodeString(*e.Base64); err != nil {
			return e, nil, true, fmt.Errorf("the CloudEvent's data cannot be read: %w", err)
		}
	}
	return e, data, true, e.check()
}

func (e cloudEvent) check() error {
	if !strings.HasPrefix(e.SpecVersion, "1.") {
		return fmt.Errorf("the CloudEvent is of version %q, and 1.0 is understood", e.SpecVersion)
	}
	if e.ID == "" || e.Source == "" {
		return fmt.Errorf("the CloudEvent lacks its id (%q) or its source (%q)", e.ID, e.Source)
	}
	return nil
}

// arrival is a message on its way into the table.
type arrival struct {
	topic, id string
	digest    []byte
	size      int
	payload   []byte
	headers   map[string]string
	after     time.Duration // due this long after now
	flaw      string        // why it is dead at once; empty: it is not
}

// arrive judges a message of others by itself: whether it has an id, and is within the limits. One that has not is kept all
// the same, named by its content.
func (c InboxConfig) arrive(topic string, msg *message.Message) arrival {
	sum := sha256.Sum256(msg.Payload)
	a := arrival{topic: topic, digest: sum[:], size: len(msg.Payload), payload: msg.Payload}
	if a.payload == nil {
		a.payload = []byte{}
	}
	fail := func(format string, args ...any) {
		if a.flaw == "" {
			a.flaw = fmt.Sprintf(format, args...)
		}
	}
	if len(a.payload) > c.MaxPayloadBytes {
		fail("the payload has %d bytes, more than the limit of %d; the rest is not kept", len(a.payload), c.MaxPayloadBytes)
		a.payload = a.payload[:c.MaxPayloadBytes]
	}
	var flaw string
	if a.headers, flaw = c.headers(msg.Metadata); flaw != "" {
		fail("%s", flaw)
	}
	if a.flaw == "" {
		event, _, is, err := readCloudEvent(a.payload, a.headers)
		switch {
		case err != nil:
			fail("%v", err)
		case is:
			a.id = event.Source + "#" + event.ID
		case msg.UUID == "" || msg.UUID == msg.Metadata.Get(MetaPlace): // a header of that name with another value is theirs
			fail("the message has no id: it is no CloudEvent, and none came with it")
		default:
			a.id = msg.UUID
		}
	}
	if a.flaw == "" && (len(a.id) > MaxIncomingIDBytes || !isText(a.id)) {
		fail("the id has %d bytes, more than the limit of %d, or is no text", len(a.id), MaxIncomingIDBytes)
	}
	if a.flaw != "" {
		a.id = "content:" + hex.EncodeToString(sum[:])
	}
	return a
}

// headers are those that can be kept, and what is wrong with the others.
func (c InboxConfig) headers(all message.Metadata) (kept map[string]string, flaw string) {
	kept = make(map[string]string, len(all))
	size := 0
	for name, value := range all {
		size += len(name) + len(value)
		switch {
		case len(kept) >= c.MaxHeaders || size > c.MaxHeaderBytes:
			return kept, fmt.Sprintf("there are %d headers; at most %d with %d bytes together are kept", len(all), c.MaxHeaders, c.MaxHeaderBytes)
		case !isText(name) || !isText(value):
			flaw = fmt.Sprintf("header %q is no text", name)
		default:
			kept[name] = value
		}
	}
	return kept, flaw
}

// isText tells whether a column of text takes it as it is.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }
