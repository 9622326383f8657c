package graph

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

const (
	typeJSON     = "application/json"
	typeResponse = "application/graphql-response+json"
	typeEvents   = "text/event-stream"
)

// overHTTP answers POST and GET as the GraphQL-over-HTTP draft says, and server-sent events (distinct connections)
// where the client accepts them.
type overHTTP struct{ handler *Handler }

var _ graphql.Transport = (*overHTTP)(nil)

// Supports is true for everything that is not a WebSocket.
func (t *overHTTP) Supports(r *http.Request) bool { return !isSocket(r) }

// Do answers one request.
func (t *overHTTP) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	params, status, err := t.read(w, r)
	if err != nil {
		writeError(w, status, err)
		return
	}
	if wantsEvents(r) {
		t.stream(w, r, exec, params)
		return
	}
	mediaType := typeJSON
	if strings.Contains(r.Header.Get("Accept"), typeResponse) {
		mediaType = typeResponse
	}
	ctx := r.Context()
	oc, errs := exec.CreateOperationContext(ctx, params)
	if errs != nil {
		status := http.StatusOK
		if mediaType == typeResponse {
			status = http.StatusBadRequest
		}
		write(w, status, mediaType, exec.DispatchError(graphql.WithOperationContext(ctx, oc), errs))
		return
	}
	if status, refusal := refuseKind(r.Method, oc.Operation.Operation); refusal != nil {
		writeError(w, status, refusal)
		return
	}
	responses, ctx := exec.DispatchOperation(ctx, oc)
	write(w, http.StatusOK, mediaType, responses(ctx))
}

// refuseKind says which kinds of operations a plain request cannot be.
func refuseKind(method string, kind ast.Operation) (int, error) {
	switch {
	case kind == ast.Subscription:
		return http.StatusNotAcceptable, coded(codeNeedsStream, "a subscription needs a WebSocket (graphql-transport-ws) or Accept: text/event-stream")
	case kind != ast.Query && method == http.MethodGet:
		return http.StatusMethodNotAllowed, coded(codeBadRequest, "GET only queries; send mutations by POST")
	}
	return 0, nil
}

// read takes the parameters from a request. An error comes with the status that it stands for.
func (t *overHTTP) read(w http.ResponseWriter, r *http.Request) (*graphql.RawParams, int, error) {
	params := &graphql.RawParams{Headers: r.Header}
	params.ReadTime.Start = graphql.Now()
	var status int
	var err error
	switch r.Method {
	case http.MethodPost:
		status, err = t.readPost(w, r, params)
	case http.MethodGet:
		status, err = readGet(r, params)
	default:
		w.Header().Set("Allow", "GET, POST")
		return nil, http.StatusMethodNotAllowed, coded(codeBadRequest, "method %s is not allowed; use GET or POST", r.Method)
	}
	if err == nil && params.Query == "" && len(params.Extensions) == 0 {
		status, err = http.StatusBadRequest, coded(codeBadRequest, "the request has no query")
	}
	params.ReadTime.End = graphql.Now()
	return params, status, err
}

func (t *overHTTP) readPost(w http.ResponseWriter, r *http.Request, params *graphql.RawParams) (int, error) {
	contentType := r.Header.Get("Content-Type")
	if contentType != typeJSON {
		mediaType, options, err := mime.ParseMediaType(contentType)
		charset := strings.ToLower(options["charset"])
		if err != nil || mediaType != typeJSON || (charset != "" && charset != "utf-8") {
			return http.StatusUnsupportedMediaType, coded(codeBadRequest, "the content type must be application/json, in UTF-8")
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(t.handler.cfg.MaxBodyBytes)))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge, coded(codeTooLarge, "the body must have at most %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return http.StatusBadRequest, coded(codeBadRequest, "the body could not be read")
	}
	if err := decode(body, params); err != nil {
		return http.StatusBadRequest, coded(codeBadRequest, "the body is not a GraphQL request in JSON")
	}
	return 0, nil
}

func readGet(r *http.Request, params *graphql.RawParams) (int, error) {
	query := r.URL.Query()
	params.Query, params.OperationName = query.Get("query"), query.Get("operationName")
	if text := query.Get("variables"); text != "" {
		if err := decode([]byte(text), &params.Variables); err != nil {
			return http.StatusBadRequest, coded(codeBadRequest, "variables are not a JSON object")
		}
	}
	if text := query.Get("extensions"); text != "" {
		if err := decode([]byte(text), &params.Extensions); err != nil {
			return http.StatusBadRequest, coded(codeBadRequest, "extensions are not a JSON object")
		}
	}
	return 0, nil
}

// decode keeps numbers as they are written, and refuses what follows the value.
func decode(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

func wantsEvents(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), typeEvents) }

// stream answers with every result as a server-sent event, errors too.
func (t *overHTTP) stream(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor, params *graphql.RawParams) {
	ctx := r.Context()
	oc, errs := exec.CreateOperationContext(ctx, params)
	if errs == nil && oc.Operation.Operation == ast.Mutation && r.Method == http.MethodGet {
		status, refusal := refuseKind(r.Method, oc.Operation.Operation)
		writeError(w, status, refusal)
		return
	}
	w.Header().Set("Content-Type", typeEvents+"; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Accel-Buffering", "no")
	events := &eventWriter{w: w, control: http.NewResponseController(w), timeout: t.handler.cfg.StreamWriteTimeout}
	if events.send(":\n\n") != nil {
		return
	}
	defer events.keepAlive(t.handler.cfg.KeepAlive)()
	if errs != nil {
		_ = events.next(exec.DispatchError(graphql.WithOperationContext(ctx, oc), errs))
		_ = events.send("event: complete\ndata:\n\n")
		return
	}
	responses, ctx := exec.DispatchOperation(ctx, oc)
	for {
		response := responses(ctx)
		if response == nil {
			break
		}
		if events.next(response) != nil {
			return
		}
	}
	if ctx.Err() == nil { // a stream that is cut off is not complete: the client comes again
		_ = events.send("event: complete\ndata:\n\n")
	}
}

// eventWriter writes server-sent events and signs of life, one at a time.
type eventWriter struct {
	mu      sync.Mutex
	w       io.Writer
	control *http.ResponseController
	timeout time.Duration
}

func (e *eventWriter) next(response *graphql.Response) error {
	var b bytes.Buffer
	b.WriteString("event: next\ndata: ")
	encode(&b, response)
	b.WriteString("\n\n")
	return e.send(b.String())
}

// send gives the client a bounded time to take the text.
func (e *eventWriter) send(text string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.control.SetWriteDeadline(time.Now().Add(e.timeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := io.WriteString(e.w, text); err != nil {
		return err
	}
	return e.control.Flush()
}

// keepAlive sends comments until the returned function has returned.
func (e *eventWriter) keepAlive(every time.Duration) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				if e.send(":\n\n") != nil {
					return
				}
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
	}
}

// write sends a response with its length.
func write(w http.ResponseWriter, status int, mediaType string, response *graphql.Response) {
	b := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(b)
	b.Reset()
	encode(b, response)
	w.Header().Set("Content-Type", mediaType+"; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// encode leaves data out when there is none, as a request error must, and does not check again what the executor wrote.
func encode(b *bytes.Buffer, response *graphql.Response) {
	separator := "{"
	part := func(name string, text []byte) {
		b.WriteString(separator)
		b.WriteString(`"` + name + `":`)
		b.Write(text)
		separator = ","
	}
	if response == nil {
		response = &graphql.Response{}
	}
	if len(response.Errors) > 0 {
		part("errors", marshalErrors(response.Errors))
	}
	if response.Data != nil {
		part("data", response.Data)
	}
	if len(response.Extensions) > 0 {
		if text, err := json.Marshal(response.Extensions); err == nil {
			part("extensions", text)
		}
	}
	if separator == "{" {
		b.WriteString(separator)
	}
	b.WriteString("}")
}

func marshalErrors(errs gqlerror.List) []byte {
	text, err := json.Marshal(errs)
	if err != nil { // an extension that does not encode
		text = []byte(`[{"message":"the error could not be encoded"}]`)
	}
	return text
}

// writeError answers a request that does not come to be executed.
func writeError(w http.ResponseWriter, status int, err error) {
	e, ok := errors.AsType[*gqlerror.Error](err)
	if !ok {
		e = coded(codeBadRequest, "%s", err)
	}
	write(w, status, typeJSON, &graphql.Response{Errors: gqlerror.List{e}})
}
