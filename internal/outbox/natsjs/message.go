package natsjs

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headrace/headrace/internal/outbox"
)

const (
	// headerUUID holds a message's UUID, under the name that other Watermill adapters use.
	headerUUID = "_watermill_message_uuid"
	// headerRest holds, as a JSON object, the metadata that no header could carry as it is.
	headerRest = "Headrace-Metadata"
)

// encode makes the message for the wire. Metadata becomes headers of the same names.
func encode(topic string, msg *message.Message) (*nats.Msg, error) {
	out := nats.NewMsg(topic)
	out.Data = msg.Payload
	rest := make(map[string]string)
	if id := dedupeID(msg); id != "" && printable(id) {
		out.Header[headerUUID] = []string{msg.UUID}
		out.Header[jetstream.MsgIDHeader] = []string{id}
	} else if id != "" {
		rest[headerUUID] = msg.UUID
	}
	for name, value := range msg.Metadata {
		if plain(name, value) {
			out.Header[name] = []string{value}
		} else {
			rest[name] = value
		}
	}
	if len(rest) > 0 {
		text, err := json.Marshal(rest)
		if err != nil {
			return nil, fmt.Errorf("encoding metadata: %w", err)
		}
		out.Header[headerRest] = []string{string(text)}
	}
	return out, nil
}

// dedupeID is what the server knows a message by. One of the outbox that is published under another claim is meant to be
// stored again: perhaps a receiver has failed with it in the meantime.
func dedupeID(msg *message.Message) string {
	if claim := msg.Metadata.Get(outbox.MetaClaim); claim != "" {
		return msg.UUID + "-" + claim
	}
	return msg.UUID
}

// plain tells whether a header carries name and value unchanged and without a meaning of its own.
func plain(name, value string) bool {
	if name == "" || name == headerRest || name == headerUUID || strings.HasPrefix(strings.ToLower(name), "nats-") {
		return false
	}
	return printable(name) && !strings.ContainsAny(name, ": ") && printable(value)
}

// printable tells whether the text is of ASCII alone, without control characters and without spaces around it.
func printable(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c >= 0x7f {
			return false
		}
	}
	return strings.TrimSpace(text) == text
}

// decode reads whatever may stand on a subject. A message without a UUID gets the one that its publisher deduped by, or
// else its place in the stream, so that it is the same each time it is handed out.
func decode(in jetstream.Msg, stream string, sequence uint64) *message.Message {
	headers := in.Headers()
	first := func(name string) string {
		if values := headers[name]; len(values) > 0 {
			return values[0]
		}
		return ""
	}
	msg := message.NewMessage(first(headerUUID), in.Data())
	for name := range headers {
		if name != headerUUID && name != headerRest && !strings.HasPrefix(strings.ToLower(name), "nats-") {
			msg.Metadata[name] = first(name)
		}
	}
	var rest map[string]string
	if json.Unmarshal([]byte(first(headerRest)), &rest) == nil {
		for name, value := range rest {
			msg.Metadata[name] = value
		}
	}
	if id, moved := rest[headerUUID]; moved {
		msg.UUID = id
		delete(msg.Metadata, headerUUID)
	}
	if msg.UUID == "" {
		msg.UUID = first(jetstream.MsgIDHeader)
	}
	if msg.UUID == "" {
		msg.UUID = fmt.Sprintf("%s:%d", stream, sequence)
		msg.Metadata[outbox.MetaPlace] = msg.UUID
	}
	return msg
}
