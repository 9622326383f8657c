package transport

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/99designs/gqlgen/graphql"
)

// events answers with every result as a server-sent event, errors too, in the distinct connections mode of graphql-sse.
type events struct{ *Server }

var _ graphql.Transport = events{}

const (
	eventsBegin    = ":\n\n" // lets the client see the headers
	eventsAlive    = ":\n\n"
	eventsComplete = "event: complete\ndata:\n\n" // without data a browser would not tell of it
)

// Supports is true for those who prefer server-sent events to a plain answer.
func (events) Supports(r *http.Request) bool {
	accept := r.Header["Accept"]
	return len(accept) > 0 && (len(accept) > 1 || accept[0] != typeJSON) && negotiate(r.Header).prefer
}

// Do answers one request.
func (t events) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	begun := false
	defer t.guard(w, r, typeJSON, &begun)
	a, refused := t.receive(w, r)
	if refused != nil {
		t.writeRefusal(w, typeJSON, refused)
		return
	}
	oc, errs := exec.CreateOperationContext(a.ctx, a.params)
	var response *graphql.Response
	if errs != nil {
		response = exec.DispatchError(graphql.WithOperationContext(a.ctx, oc), errs)
	} else if refused := refuseByGET(w, r, oc.Operation.Operation); refused != nil {
		t.writeRefusal(w, typeJSON, refused)
		return
	}
	begun = true
	t.answer(w, r, exec, a, oc, response)
}

// answer streams the results of an operation, or the response that it was refused with. A stream that the server cuts off, because it drains or the
// login has expired, is not complete: its client comes again with what it has seen.
func (t events) answer(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor, a asked, oc *graphql.OperationContext, response *graphql.Response) {
	ended, refused := t.beginStream()
	if refused != nil {
		t.writeRefusal(w, typeJSON, refused)
		return
	}
	defer ended()
	o := &operation{stream: stream{lastEventID: r.Header.Get("Last-Event-ID")}}
	ctx, cancel := context.WithCancel(withStream(a.ctx, &o.stream))
	o.cancel = cancel
	to := sink{newQueue(&t.cfg), encodeEvent, func() {}}
	cut := func() { cancel(); to.queue.close(true) }
	defer context.AfterFunc(t.life, cut)()
	defer context.AfterFunc(a.ctx, cut)()
	if !a.expires.IsZero() {
		defer time.AfterFunc(time.Until(a.expires), cut).Stop()
	}
	done := make(chan struct{})
	defer func() { cut(); <-done }()
	go func() {
		defer close(done)
		switch t.run(ctx, exec, o, to, func() (*graphql.OperationContext, *graphql.Response) { return oc, response }) {
		case slow:
			to.queue.putLast(message{text: append(encodeEvent(o, o.slowError(), ""), eventsComplete...)})
		case queued:
			if ctx.Err() == nil {
				to.queue.putLast(message{text: []byte(eventsComplete)})
			}
		case gone:
		}
		cancel() // a producer that is slow to notice must not be waited for
		to.queue.close(false)
	}()
	t.write(w, to.queue)
}

// write sends what is queued, and signs of life, until the queue is closed or the client does not take them in time.
func (t events) write(w http.ResponseWriter, q *queue) {
	header, control := w.Header(), http.NewResponseController(w)
	header.Set("Content-Type", typeEvents+"; charset=utf-8")
	header.Set("Cache-Control", "no-cache")
	header.Set("X-Accel-Buffering", "no")
	send := func(text []byte) bool {
		err := control.SetWriteDeadline(time.Now().Add(t.cfg.WriteTimeout))
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			return false
		}
		if _, err := w.Write(text); err != nil {
			return false
		}
		return control.Flush() == nil
	}
	alive := time.NewTicker(t.cfg.KeepAlive)
	defer alive.Stop()
	for going := send([]byte(eventsBegin)); going; {
		m, ok, ends := q.take()
		switch {
		case ok:
			going = send(m.text)
			continue
		case ends:
			return
		}
		select {
		case <-q.ready:
		case <-alive.C:
			going = send([]byte(eventsAlive))
		}
	}
}

// encodeEvent makes an event of a response. Its id says where in the log it stands, if it does.
func encodeEvent(_ *operation, response *graphql.Response, id string) []byte {
	b := buffers.Get().(*bytes.Buffer)
	defer recycle(b)
	if id != "" {
		b.WriteString("id: ")
		b.WriteString(id)
		b.WriteByte('\n')
	}
	b.WriteString("event: next\ndata: ")
	start := b.Len()
	encode(b, response)
	for i, c := range b.Bytes()[start:] { // between the parts of a JSON text; in its strings they are escaped
		if c == '\n' || c == '\r' {
			b.Bytes()[start+i] = ' '
		}
	}
	b.WriteString("\n\n")
	return bytes.Clone(b.Bytes())
}
