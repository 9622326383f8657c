package transport

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/coder/websocket"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// sockets speaks graphql-transport-ws.
type sockets struct{ *Server }

var _ graphql.Transport = sockets{}

// Supports leaves out other upgrades: some HTTP clients offer h2c with every request.
func (sockets) Supports(r *http.Request) bool {
	return len(r.Header["Upgrade"]) > 0 && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// Do opens a WebSocket and serves it until it is closed.
func (t sockets) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	ended, refused := t.beginStream()
	if refused != nil {
		t.writeRefusal(w, typeJSON, refused)
		return
	}
	defer ended()
	// Another subprotocol is agreed on and then refused: else a browser shows the page nothing but a failure.
	offered := subprotocols(r)
	agreed := []string{protocol}
	if len(offered) > 0 && !slices.Contains(offered, protocol) {
		agreed = offered[:1]
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: agreed, InsecureSkipVerify: true}) // the origin was checked before
	if err != nil {
		return // and has answered
	}
	conn.SetReadLimit(int64(t.cfg.MaxBodyBytes))
	s := &socket{server: t.Server, exec: exec, conn: conn, request: r, queue: newQueue(&t.cfg), operations: map[string]*operation{}}
	s.ctx, s.cancel = context.WithCancel(r.Context())
	s.serve()
}

func subprotocols(r *http.Request) []string {
	var offered []string
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name != "" {
				offered = append(offered, name)
			}
		}
	}
	return offered
}

// socket is an open WebSocket. One goroutine reads from it and one writes; each operation has one more, which ends with
// the operation.
type socket struct {
	server  *Server
	exec    graphql.GraphExecutor
	conn    *websocket.Conn
	request *http.Request
	queue   *queue
	work    sync.WaitGroup // the writer, the operations and a ping
	pinging atomic.Bool

	ctx    context.Context // ends with the socket
	cancel context.CancelFunc

	acknowledged bool            // just the reader knows
	as           context.Context // of the operations, since the login
	initTimer    *time.Timer
	loginExpiry  *time.Timer

	mu         sync.Mutex
	operations map[string]*operation // open, by id
	places     int                   // taken by operations: until the last message of each is written
	ended      bool
	code       websocket.StatusCode // to close with; 0: without a close handshake
	reason     string
	cutOff     *time.Timer // ends the closing at the latest
}

func (s *socket) serve() {
	if s.conn.Subprotocol() != protocol {
		s.end(closeSubprotocol, "The subprotocol must be "+protocol)
	}
	defer context.AfterFunc(s.server.life, func() { s.end(closeRestart, drainingText) })()
	s.initTimer = time.AfterFunc(s.server.cfg.InitTimeout, func() { s.end(closeInitTimeout, "Connection initialisation timeout") })
	s.work.Go(s.write)
	s.read()
	s.initTimer.Stop()
	if s.loginExpiry != nil {
		s.loginExpiry.Stop()
	}
	s.work.Wait()
	s.cutOff.Stop()
}

// end closes the socket: with a code, after what is queued was written or, for a peer that takes nothing, at once;
// without one when the peer has gone.
func (s *socket) end(code websocket.StatusCode, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended, s.code, s.reason = true, code, reason
	s.cancel()
	s.queue.close(code == 0 || code == closeSlow)
	s.cutOff = time.AfterFunc(s.server.cfg.WriteTimeout, func() { _ = s.conn.CloseNow() })
}

// read takes messages until the peer goes or the socket ends.
func (s *socket) read() {
	for {
		kind, text, err := s.conn.Read(context.Background()) // one that ends would cut off the close handshake
		if errors.Is(err, websocket.ErrMessageTooBig) {
			s.end(websocket.StatusMessageTooBig, "The message is too long")
			return
		}
		if err != nil {
			s.end(0, "")
			return
		}
		if kind != websocket.MessageText {
			s.end(closeBadMessage, "The protocol has text messages only")
			return
		}
		if code, reason := s.receive(text); code != 0 {
			s.end(code, reason)
			return
		}
	}
}

// receive does what a message asks for. A code says that the socket has to be closed for it.
func (s *socket) receive(text []byte) (code websocket.StatusCode, reason string) {
	var m incoming
	if wrong := m.read(text); wrong != "" {
		return closeBadMessage, wrong
	}
	switch m.Type {
	case "connection_init":
		return s.initialise(m.Payload)
	case "ping":
		return s.say(pong(m.Payload))
	case "subscribe":
		if !s.acknowledged {
			return closeEarly, "Unauthorized"
		}
		return s.subscribe(*m.ID, m.Payload)
	case "complete":
		s.complete(*m.ID)
	}
	return 0, ""
}

// say queues a message that no operation sends. While there is no room nothing is read, which slows the client that
// caused it.
func (s *socket) say(text []byte) (code websocket.StatusCode, reason string) {
	if s.queue.put(message{text: text}, s.server.cfg.SlowAfter, s.ctx.Done()) == slow {
		return closeSlow, "Messages are not taken in time"
	}
	return 0, ""
}

func (s *socket) initialise(payload json.RawMessage) (code websocket.StatusCode, reason string) {
	if s.acknowledged {
		return closeSecondInit, "Too many initialisation requests"
	}
	var object map[string]any
	if decode(payload, &object) != nil {
		return closeBadMessage, "The payload of connection_init is not an object"
	}
	s.as = s.ctx
	if login := s.server.cfg.Login; login != nil {
		ctx, expires, err := login(s.ctx, s.request, object)
		if err != nil {
			return refusedLogin(err)
		}
		s.as = ctx
		if !expires.IsZero() {
			s.loginExpiry = time.AfterFunc(time.Until(expires), func() { s.end(closeForbidden, "The login has expired") })
		}
	}
	s.initTimer.Stop()
	s.acknowledged = true
	return s.say(messageAck)
}

// refusedLogin tells a login that is wrong from one that could not be looked at.
func refusedLogin(err error) (websocket.StatusCode, string) {
	refused := presentable(err, CodeUnauthenticated, "")
	switch refused.Extensions["code"] {
	case CodeUnauthenticated, CodeForbidden:
		return closeForbidden, "Forbidden"
	}
	return closeTryLater, "The login could not be checked"
}

func (s *socket) subscribe(id string, payload json.RawMessage) (code websocket.StatusCode, reason string) {
	var d document
	if json.Unmarshal(payload, &d) != nil {
		return closeBadMessage, "The payload of subscribe is not a GraphQL request"
	}
	start := graphql.Now()
	params, refused := d.params(s.request.Header, s.server.cfg.MaxVariablesBytes)
	if refused != nil && refused.Extensions["code"] == CodeBadRequest {
		return closeBadMessage, "The payload of subscribe is not a GraphQL request"
	}
	o := &operation{}
	o.id, _ = json.Marshal(id)
	if refused == nil {
		params.ReadTime = graphql.TraceTiming{Start: start, End: graphql.Now()}
		var known bool
		if known, refused = s.open(id, o); known {
			return closeDuplicate, "There is an operation of this id"
		}
	}
	if refused != nil {
		return s.say(encodeMessage(o, &graphql.Response{Errors: gqlerror.List{refused}}, ""))
	}
	ctx, cancel := context.WithCancel(withStream(graphql.StartOperationTrace(s.as), &o.stream))
	o.cancel = cancel
	s.work.Go(func() { s.run(ctx, id, o, params) })
	return 0, ""
}

// open gives an operation its id and a place.
func (s *socket) open(id string, o *operation) (known bool, refused *gqlerror.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.operations[id]; known {
		return true, nil
	}
	if s.places >= s.server.cfg.MaxOperations {
		return false, refuse(CodeTooManyStreams, "at most %d operations may be open on one socket", s.server.cfg.MaxOperations)
	}
	s.operations[id] = o
	s.places++
	return false, nil
}

// complete stops an operation for the client, which may use the id again at once. Nothing more is sent of it, not even
// what is queued.
func (s *socket) complete(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, open := s.operations[id]; open {
		delete(s.operations, id)
		o.stopped.Store(true)
		o.cancel()
	}
}

// run carries out an operation. The id is free again before the client can see that it has ended.
func (s *socket) run(ctx context.Context, id string, o *operation, params *graphql.RawParams) {
	defer o.cancel()
	failed := false
	to := sink{s.queue, encodeMessage, func() { failed = true; s.free(id, o) }}
	end := s.server.run(ctx, s.exec, o, to, func() (*graphql.OperationContext, *graphql.Response) {
		if _, refused := s.server.admit(ctx, s.request); refused != nil {
			return nil, &graphql.Response{Errors: gqlerror.List{refused}}
		}
		oc, errs := s.exec.CreateOperationContext(ctx, params)
		if errs != nil {
			return nil, s.exec.DispatchError(graphql.WithOperationContext(ctx, oc), errs)
		}
		return oc, nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.operations[id] == o {
		delete(s.operations, id)
	}
	switch {
	case end == slow:
		s.queue.putLast(message{operation: o, text: encodeMessage(o, o.slowError(), "")})
	case end == queued && !failed && !o.stopped.Load():
		s.queue.putLast(message{operation: o, text: encodeComplete(o)})
	default:
		s.places--
	}
}

func (s *socket) free(id string, o *operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.operations[id] == o {
		delete(s.operations, id)
	}
}

// write sends what is queued, and signs of life, until the socket ends; then it closes it.
func (s *socket) write() {
	timeout := s.server.cfg.WriteTimeout
	stuck := time.AfterFunc(timeout, func() { s.end(closeSlow, "Messages are not taken in time") })
	stuck.Stop()
	alive := time.NewTicker(s.server.cfg.KeepAlive)
	defer alive.Stop()
	for {
		m, ok, ends := s.queue.take()
		switch {
		case ok:
			if m.operation == nil || !m.operation.stopped.Load() {
				stuck.Reset(timeout)
				err := s.conn.Write(context.Background(), websocket.MessageText, m.text) // one that ends would cost a goroutine
				stuck.Stop()
				if err != nil {
					s.end(0, "")
				}
			}
			if m.last {
				s.leave()
			}
			continue
		case ends:
			s.close()
			return
		}
		select {
		case <-s.queue.ready:
		case <-alive.C:
			s.work.Go(s.ping)
		}
	}
}

// leave gives back the place of an operation whose last message was written.
func (s *socket) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.places--
}

// ping asks for a sign of life, unless one is still awaited. A peer that gives none is gone, though nothing says so.
func (s *socket) ping() {
	if s.pinging.Swap(true) {
		return
	}
	defer s.pinging.Store(false)
	ctx, cancel := context.WithTimeout(context.Background(), s.server.cfg.WriteTimeout)
	defer cancel()
	if s.conn.Ping(ctx) != nil && ctx.Err() != nil {
		s.end(closeSlow, "There is no sign of life")
	}
}

// close says why, and waits for a bounded time for the peer to agree.
func (s *socket) close() {
	s.mu.Lock()
	code, reason := s.code, s.reason
	s.mu.Unlock()
	if code == 0 {
		_ = s.conn.CloseNow()
		return
	}
	_ = s.conn.Close(code, reason)
}
