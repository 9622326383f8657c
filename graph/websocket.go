package graph

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/coder/websocket"
)

// protocol is the only one spoken. Its predecessor, graphql-ws, is refused.
const protocol = "graphql-transport-ws"

// Close codes of graphql-transport-ws, and the one that makes clients come again.
const (
	closeRestart     = 1012
	closeBadRequest  = 4400
	closeEarly       = 4401
	closeInitTimeout = 4408
	closeDuplicate   = 4409
	closeSecondInit  = 4429
)

// isSocket leaves out other upgrades: some HTTP clients offer h2c with every request.
func isSocket(r *http.Request) bool { return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") }

// refuseSocket says why a client cannot have a WebSocket. A browser opens one for any page, so that the page's origin
// is checked as for a POST.
func (h *Handler) refuseSocket(r *http.Request) (int, error) {
	if !offers(r, protocol) {
		return http.StatusBadRequest, coded(codeBadRequest, "the only subprotocol is %s", protocol)
	}
	asPost := r.WithContext(r.Context())
	asPost.Method = http.MethodPost
	if h.protection.Check(asPost) != nil {
		return http.StatusForbidden, coded(codeBadRequest, "pages of this origin are not trusted")
	}
	return 0, nil
}

// sockets accepts WebSockets for gqlgen's transport. Unlike gqlgen's own way it bounds how long a write may take, so that a
// client which stopped reading is dropped, and says the protocol's close codes.
type sockets struct{ handler *Handler }

// Accept opens a WebSocket, which ends with the request's context at the latest.
func (s *sockets) Accept(w http.ResponseWriter, r *http.Request, _ transport.WebsocketAcceptOptions) (transport.WebsocketConn, error) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{protocol}, InsecureSkipVerify: true, // the origin was checked before
	})
	if err != nil {
		return nil, fmt.Errorf("accept WebSocket: %w", err)
	}
	conn.SetReadLimit(int64(s.handler.cfg.MaxBodyBytes))
	opened := &socket{conn: conn, cfg: &s.handler.cfg, life: s.handler.life, ids: map[string]struct{}{}}
	context.AfterFunc(r.Context(), func() { _ = opened.WriteClose(int(websocket.StatusNormalClosure), "") })
	return opened, nil
}

func offers(r *http.Request, name string) bool {
	for _, header := range r.Header.Values("Sec-WebSocket-Protocol") {
		if slices.ContainsFunc(strings.Split(header, ","), func(p string) bool { return strings.TrimSpace(p) == name }) {
			return true
		}
	}
	return false
}

type socket struct {
	conn *websocket.Conn
	cfg  *Config
	life context.Context // of the handler

	mu       sync.Mutex
	deadline *time.Timer // for the next message
	closing  sync.Once
	closes   bool                // there is a close handshake
	begun    bool                // connection_init came; only the reader knows
	ids      map[string]struct{} // of the operations that are open, as the client sees it
}

// NextReader waits for a message that the protocol allows. For another it closes with the code which says what is wrong:
// clients take the transport's own code, 1000, for a reason to come again at once and without end.
func (s *socket) NextReader() (int, io.Reader, error) {
	kind, text, err := s.conn.Read(context.Background())
	switch websocket.CloseStatus(err) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusNoStatusRcvd:
		return int(kind), nil, transport.ErrWebsocketClosed
	}
	if err != nil {
		return int(kind), nil, err
	}
	if code, reason := s.refuse(text); code != 0 {
		_ = s.WriteClose(code, reason)
		return int(kind), nil, transport.ErrWebsocketClosed
	}
	return int(kind), bytes.NewReader(text), nil
}

// refuse says with which code a message must be answered, 0 for those that are let through.
func (s *socket) refuse(text []byte) (code int, reason string) {
	var message struct {
		ID      string          `json:"id"`
		Type    string          `json:"type"`
		Payload json.RawMessage `json:"payload"`
	}
	if json.Unmarshal(text, &message) != nil {
		return closeBadRequest, "The message is not JSON of the protocol"
	}
	object := len(message.Payload) > 0 && message.Payload[0] == '{'
	switch message.Type {
	case "connection_init":
		if s.begun {
			return closeSecondInit, "Too many initialisation requests"
		}
		if !object && message.Payload != nil && string(message.Payload) != "null" {
			return closeBadRequest, "The payload of connection_init is not an object"
		}
		s.begun = true
	case "subscribe":
		if !s.begun {
			return closeEarly, "Unauthorized"
		}
		if message.ID == "" || !object {
			return closeBadRequest, "A subscribe message needs an id and a payload"
		}
		if !s.opens(message.ID) {
			return closeDuplicate, "Subscriber for this id already exists"
		}
	case "complete":
		s.ends(message.ID)
	case "ping", "pong":
	default:
		return closeBadRequest, "The protocol has no message of this type"
	}
	return 0, ""
}

func (s *socket) opens(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, open := s.ids[id]
	s.ids[id] = struct{}{}
	return !open
}

func (s *socket) ends(id string) (wasOpen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, wasOpen = s.ids[id]
	delete(s.ids, id)
	return wasOpen
}

// unwanted reports whether a message to the client must not be sent: the transport tells the end also of operations
// that the client completed itself, or that ended with an error.
func (s *socket) unwanted(text []byte) bool {
	if bytes.HasSuffix(text, []byte(`"type":"next"}`)) { // spares the reading of the many
		return false
	}
	var message struct {
		ID   string `json:"id"`
		Type string `json:"type"`
	}
	if json.Unmarshal(text, &message) != nil {
		return false
	}
	switch message.Type {
	case "complete", "error":
		return !s.ends(message.ID)
	}
	return false
}

// WriteJSON sends a message. A client that does not take it in time is cut off.
func (s *socket) WriteJSON(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if s.unwanted(text) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.StreamWriteTimeout)
	defer cancel()
	return s.conn.Write(ctx, websocket.MessageText, text)
}

// WriteClose begins to close with the code that the protocol has for the reason, and does not wait.
func (s *socket) WriteClose(code int, message string) error {
	switch {
	case s.life.Err() != nil:
		code, message = closeRestart, errDraining.Error()
	case strings.Contains(message, "timeout"):
		code, message = closeInitTimeout, "Connection initialisation timeout"
	case code == transport.WebsocketCloseProtocolError:
		code = closeBadRequest
	}
	s.closing.Do(func() {
		s.mu.Lock()
		s.closes = true
		s.mu.Unlock()
		go func() { _ = s.conn.Close(websocket.StatusCode(code), message) }()
	})
	return nil
}

// Close lets a close handshake that was begun come to its end, which is bounded, and cuts off otherwise.
func (s *socket) Close() error {
	_ = s.SetReadDeadline(time.Time{})
	s.mu.Lock()
	closes := s.closes
	s.mu.Unlock()
	if closes {
		return nil
	}
	return s.conn.CloseNow()
}

// Subprotocol is the one that was agreed on.
func (s *socket) Subprotocol() string { return s.conn.Subprotocol() }

// SetReadDeadline cuts the client off unless a message comes by then. The zero time takes the deadline back.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deadline != nil {
		s.deadline.Stop()
		s.deadline = nil
	}
	if !t.IsZero() {
		s.deadline = time.AfterFunc(time.Until(t), func() { _ = s.conn.CloseNow() })
	}
	return nil
}

var (
	_ transport.WebsocketConn          = (*socket)(nil)
	_ transport.WebsocketReadDeadliner = (*socket)(nil)
)
