package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// chaosSubscriber follows the log, over an event stream or a WebSocket, and goes on at another server with its last
// position whenever the connection ends or says nothing for long.
type chaosSubscriber struct {
	c          *chaos
	overSocket bool
	last       *atomic.Int64 // where the log ends; 0: not known yet

	position   int64  // the newest seen; all before it were seen
	id         string // of the newest, on an event stream
	reconnects int
	problem    string
}

// silence is how long nothing may come before another server is asked.
const silence = 5 * time.Second

func (s *chaosSubscriber) follow() {
	for s.c.t.Context().Err() == nil && s.problem == "" && !s.done() {
		ctx, cancel := context.WithCancel(s.c.t.Context())
		alive := time.AfterFunc(silence, cancel)
		heard := func(data []byte) bool {
			alive.Reset(silence)
			return s.take(data) && !s.done()
		}
		if s.overSocket {
			s.socket(ctx, s.c.url(), heard)
		} else {
			s.events(ctx, s.c.url(), heard)
		}
		alive.Stop()
		cancel()
		s.reconnects++
		s.c.rest(10 * time.Millisecond)
	}
}

func (s *chaosSubscriber) done() bool { last := s.last.Load(); return last > 0 && s.position >= last }

// take wants the next position, and no other. It returns false when the stream is of no more use.
func (s *chaosSubscriber) take(data []byte) bool {
	var message struct {
		Data *struct {
			Events *struct{ Position json.Number }
		}
	}
	if err := json.Unmarshal(data, &message); err != nil || message.Data == nil || message.Data.Events == nil {
		return false // an error of a server that is going down
	}
	position, err := strconv.ParseInt(message.Data.Events.Position.String(), 10, 64)
	if err != nil || position != s.position+1 {
		s.problem = fmt.Sprintf("after %d came %s", s.position, data)
		return false
	}
	s.position = position
	return true
}

// events follows over an event stream, and names its last position as browsers do: by Last-Event-ID.
func (s *chaosSubscriber) events(ctx context.Context, server string, heard func([]byte) bool) {
	document := `subscription { events(after: "0") { position } }`
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/graphql?query="+url.QueryEscape(document), http.NoBody)
	if err != nil {
		return
	}
	request.Header.Set("Accept", "text/event-stream")
	if s.id != "" {
		request.Header.Set("Last-Event-ID", s.id)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return
	}
	defer response.Body.Close()
	id := ""
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if text, is := strings.CutPrefix(lines.Text(), "id:"); is {
			id = strings.TrimSpace(text)
		}
		if text, is := strings.CutPrefix(lines.Text(), "data:"); is && strings.TrimSpace(text) != "" {
			more := heard([]byte(text))
			if s.position > 0 && id != "" {
				s.id = id
			}
			if !more {
				return
			}
		}
	}
}

// socket follows over a WebSocket.
func (s *chaosSubscriber) socket(ctx context.Context, server string, heard func([]byte) bool) {
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(server, "http")+"/graphql", &websocket.DialOptions{ //nolint:bodyclose // it is closed by Dial
		Subprotocols: []string{"graphql-transport-ws"},
	})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	document := fmt.Sprintf(`subscription { events(after: "%d") { position } }`, s.position)
	subscribe, err := json.Marshal(map[string]any{"type": "subscribe", "id": "1", "payload": map[string]any{"query": document}})
	if err != nil || conn.Write(ctx, websocket.MessageText, []byte(`{"type":"connection_init"}`)) != nil {
		return
	}
	for {
		_, text, err := conn.Read(ctx)
		if err != nil {
			return
		}
		var message struct {
			Type    string
			Payload json.RawMessage
		}
		if json.Unmarshal(text, &message) != nil {
			return
		}
		switch message.Type {
		case "connection_ack":
			err = conn.Write(ctx, websocket.MessageText, subscribe)
		case "ping":
			err = conn.Write(ctx, websocket.MessageText, []byte(`{"type":"pong"}`))
		case "next":
			if !heard(message.Payload) {
				return
			}
		default:
			return
		}
		if err != nil {
			return
		}
	}
}
