package graph

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/identity"
)

// maxName bounds, in bytes, what clients give as names: actors, command ids, correlation ids.
const maxName = 100

// request is what resolvers know of the HTTP request or WebSocket that an operation came by.
type request struct {
	correlationID string
}

type requestKey struct{}

// newRequest reads the headers. X-Request-Id becomes the correlation id when it is fit for one; else one is made.
func newRequest(r *http.Request) *request {
	req := &request{correlationID: r.Header.Get("X-Request-Id")}
	if req.correlationID == "" || commands.CheckText("X-Request-Id", req.correlationID, maxName) != nil {
		req.correlationID = uuid.Must(uuid.NewV7()).String()
	}
	return req
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
