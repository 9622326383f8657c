package graph

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/http"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/identity"
)

// maxName bounds, in bytes, what clients give as names: actors, command ids, correlation ids.
const maxName = 100

// headerRequestID is in the form in which http.Header keeps it, as the other names of headers here are too.
const headerRequestID = "X-Request-Id"

// request is what resolvers know of the HTTP request or WebSocket that an operation came by.
type request struct {
	correlationID string
}

type requestKey struct{}

// newRequest reads the headers. X-Request-Id becomes the correlation id when it is fit for one; else one is made.
func newRequest(r *http.Request) *request {
	req := &request{}
	if given := r.Header[headerRequestID]; len(given) > 0 {
		req.correlationID = given[0]
	}
	if req.correlationID == "" || commands.CheckText(headerRequestID, req.correlationID, maxName) != nil {
		req.correlationID = uuid.Must(uuid.NewV7FromReader(guessable{})).String()
	}
	return req
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
	call := commands.Call{Who: identity.FromContext(ctx), CorrelationID: requestOf(ctx).correlationID}
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
