package graph

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

// maxName bounds, in bytes, what clients give as names: actors, command ids, correlation ids.
const maxName = 100

// maxTracestate bounds, in bytes, what is kept of the header Tracestate.
const maxTracestate = 512

// These are in the form in which http.Header keeps them, as the other names of headers here are too.
const (
	headerRequestID   = "X-Request-Id"
	headerTraceparent = "Traceparent"
	headerTracestate  = "Tracestate"
)

// request is what resolvers know of the HTTP request or WebSocket that an operation came by.
type request struct {
	correlationID string
	trace         eventstore.Trace
}

type requestKey struct{}

// newRequest reads the headers. X-Request-Id becomes the correlation id when it is fit for one; else one is made. A trace
// context goes along.
func newRequest(r *http.Request) *request {
	req := &request{}
	if given := r.Header[headerRequestID]; len(given) > 0 {
		req.correlationID = given[0]
	}
	if req.correlationID == "" || commands.CheckText(headerRequestID, req.correlationID, maxName) != nil {
		req.correlationID = uuid.Must(uuid.NewV7FromReader(guessable{})).String()
	}
	if given := r.Header[headerTraceparent]; len(given) == 1 {
		req.trace = readTrace(given[0], strings.Join(r.Header[headerTracestate], ","))
	}
	return req
}

// readTrace takes a trace context for what it is worth: one that is malformed is none, and a state that is malformed or
// longer than what the standard asks programs to pass on is left out.
func readTrace(parent, state string) eventstore.Trace {
	if len(state) > maxTracestate {
		state = ""
	}
	given := propagation.MapCarrier{"traceparent": parent, "tracestate": state}
	taken := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(propagation.TraceContext{}.Extract(context.Background(), given), taken)
	return eventstore.Trace{Parent: taken["traceparent"], State: taken["tracestate"]}
}

// guessable are random numbers for what need not be a secret, at a tenth of the price.
type guessable struct{}

func (guessable) Read(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		var number [8]byte
		binary.NativeEndian.PutUint64(number[:], rand.Uint64())
		rest = rest[copy(rest, number[:]):]
	}
	return len(p), nil
}

func requestOf(ctx context.Context) *request {
	if req, ok := ctx.Value(requestKey{}).(*request); ok {
		return req
	}
	return &request{}
}

// newCall says how a command comes. A command id that is empty or too long and a version below 0 are refused.
func newCall(ctx context.Context, commandID *string, expected *int) (commands.Call, error) {
	call := commands.Call{Who: identity.FromContext(ctx), CorrelationID: requestOf(ctx).correlationID, Trace: requestOf(ctx).trace}
	if err := commands.CheckOptionalText("actor", call.Who.Subject, maxName); err != nil {
		return call, err
	}
	if commandID != nil {
		if err := commands.CheckText("commandId", *commandID, maxName); err != nil {
			return call, err
		}
		call.CommandID = *commandID
	}
	if expected != nil {
		if *expected < 0 {
			return call, &commands.Rejection{
				Code: codeInvalidInput, Field: "expectedVersion", Message: "expectedVersion must not be negative",
			}
		}
		version := int64(*expected)
		call.ExpectedVersion = &version
	}
	return call, nil
}
