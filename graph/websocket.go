package graph

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/coder/websocket"
)

// protocol is the only one spoken. Its predecessor, graphql-ws, is refused.
const protocol = "graphql-transport-ws"

// initTimeout is how long a client may take to send connection_init.
const initTimeout = 10 * time.Second

// Close codes of graphql-transport-ws, and the one that makes clients come again.
const (
	closeRestart     = 1012
	closeBadRequest  = 4400
	closeInitTimeout = 4408
)

func isSocket(r *http.Request) bool { return r.Header.Get("Upgrade") != "" }

// sockets accepts WebSockets for gqlgen's transport. Unlike gqlgen's own way it bounds how long a write may take, so that a
// client which stopped reading is dropped, and says the protocol's close codes.
type sockets struct{ handler *Handler }

// Accept opens a WebSocket for a page of the same origin or a trusted one.
func (s *sockets) Accept(w http.ResponseWriter, r *http.Request, _ transport.WebsocketAcceptOptions) (transport.WebsocketConn, error) {
	if !offers(r, protocol) {
		return nil, fmt.Errorf("the client does not offer the subprotocol %s", protocol)
	}
	hosts := make([]string, 0, len(s.handler.cfg.Origins))
	for _, origin := range s.handler.cfg.Origins {
		if u, err := url.Parse(origin); err == nil {
			hosts = append(hosts, u.Host)
		}
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{protocol}, OriginPatterns: hosts})
	if err != nil {
		return nil, fmt.Errorf("accept WebSocket: %w", err)
	}
	conn.SetReadLimit(int64(s.handler.cfg.MaxBodyBytes))
	return &socket{conn: conn, cfg: &s.handler.cfg, life: s.handler.life}, nil
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
	closes   bool // there is a close handshake
}

// NextReader waits for a message.
func (s *socket) NextReader() (int, io.Reader, error) {
	kind, text, err := s.conn.Read(context.Background())
	switch websocket.CloseStatus(err) {
	case websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusNoStatusRcvd:
		return int(kind), nil, transport.ErrWebsocketClosed
	}
	return int(kind), bytes.NewReader(text), err
}

// WriteJSON sends a message. A client that does not take it in time is cut off.
func (s *socket) WriteJSON(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
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
