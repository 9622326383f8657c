package transport

import (
	"bytes"
	"encoding/json"

	"github.com/99designs/gqlgen/graphql"
	"github.com/coder/websocket"
)

// protocol is the only one that is spoken over WebSockets.
const protocol = "graphql-transport-ws"

// The codes that sockets are closed with. What common clients do is in docs/graphql/transports.md: they come again after
// closeSlow, closeForbidden, closeInitTimeout, 1012 and 1013, and take the others for a mistake of theirs.
const (
	closeRestart     = websocket.StatusServiceRestart // the server drains
	closeTryLater    = websocket.StatusTryAgainLater  // a login could not be looked at
	closeBadMessage  = websocket.StatusCode(4400)
	closeEarly       = websocket.StatusCode(4401) // subscribe before connection_ack
	closeForbidden   = websocket.StatusCode(4403) // a login refused, or expired
	closeSubprotocol = websocket.StatusCode(4406)
	closeInitTimeout = websocket.StatusCode(4408)
	closeDuplicate   = websocket.StatusCode(4409)
	closeSecondInit  = websocket.StatusCode(4429)
	closeSlow        = websocket.StatusCode(4480) // this server's own: the peer takes nothing, or does not answer
)

// maxID bounds an operation's id, in bytes: it is sent with each of its results.
const maxID = 256

// incoming is a message of the client.
type incoming struct {
	Type    string          `json:"type"`
	ID      *string         `json:"id"`
	Payload json.RawMessage `json:"payload"`
}

// read takes a message apart. It says what is wrong with one that the protocol does not have.
func (m *incoming) read(text []byte) (wrong string) {
	if json.Unmarshal(text, m) != nil {
		return "The message is not JSON of the protocol"
	}
	isObject := len(m.Payload) > 0 && m.Payload[0] == '{'
	switch m.Type {
	case "connection_init", "ping", "pong":
		if !isObject && len(m.Payload) > 0 && string(m.Payload) != "null" {
			return "The payload of " + m.Type + " is not an object"
		}
	case "subscribe":
		if m.ID == nil || *m.ID == "" || !isObject {
			return "A subscribe message needs an id and a payload"
		}
		if len(*m.ID) > maxID {
			return "The id is too long"
		}
	case "complete":
		if m.ID == nil || *m.ID == "" {
			return "A complete message needs an id"
		}
	default:
		return "The protocol has no message of this type from clients"
	}
	return ""
}

var (
	messageAck  = []byte(`{"type":"connection_ack"}`)
	messagePong = []byte(`{"type":"pong"}`)
)

// pong answers a ping with what it came with.
func pong(payload []byte) []byte {
	if len(payload) == 0 || payload[0] != '{' {
		return messagePong
	}
	return append(append([]byte(`{"type":"pong","payload":`), payload...), '}')
}

// encodeMessage makes a message of a response. One without data is a refusal or an end: the protocol's error, after which
// nothing more comes of the operation.
func encodeMessage(o *operation, response *graphql.Response, _ string) []byte {
	b := buffers.Get().(*bytes.Buffer)
	defer recycle(b)
	b.WriteString(`{"id":`)
	b.Write(o.id)
	if response.Data == nil {
		b.WriteString(`,"type":"error","payload":`)
		if len(response.Errors) == 0 {
			response.Errors = append(response.Errors, refuse(CodeInternal, "internal error"))
		}
		b.Write(encodeErrors(response.Errors))
	} else {
		b.WriteString(`,"type":"next","payload":`)
		encode(b, response)
	}
	b.WriteByte('}')
	return bytes.Clone(b.Bytes())
}

func encodeComplete(o *operation) []byte {
	text := make([]byte, 0, len(o.id)+len(`{"id":,"type":"complete"}`))
	text = append(append(text, `{"id":`...), o.id...)
	return append(text, `,"type":"complete"}`...)
}
