package graph

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/graph/transport"
	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/queries"
)

// Codes of user errors that are not a rule's own.
const (
	codeVersionConflict = "VERSION_CONFLICT"
	codeClaimTaken      = "CLAIM_TAKEN"
	codeCommandIDReused = "COMMAND_ID_REUSED"
	codeInvalidInput    = "INVALID_INPUT"
)

// Codes of top-level errors, in extensions.code. The two of GraphQL's own, GRAPHQL_PARSE_FAILED and
// GRAPHQL_VALIDATION_FAILED, are the executor's; those of requests that do not come to be executed and of streams that
// are cut off are the transports'.
const (
	codeBadRequest         = transport.CodeBadRequest
	codeUnauthenticated    = transport.CodeUnauthenticated
	codeForbidden          = transport.CodeForbidden
	codeBadUserInput       = "BAD_USER_INPUT"
	codeTooLarge           = transport.CodeTooLarge
	codeDocumentLimit      = "DOCUMENT_LIMIT_EXCEEDED"
	codeUntrusted          = "UNTRUSTED_DOCUMENT"
	codeOrigin             = transport.CodeOrigin
	codePersistedNotFound  = "PERSISTED_QUERY_NOT_FOUND"
	codeDirectiveLimit     = "DIRECTIVE_LIMIT_EXCEEDED"
	codeAliasLimit         = "ALIAS_LIMIT_EXCEEDED"
	codeDepthLimit         = "DEPTH_LIMIT_EXCEEDED"
	codeCostLimit          = "COMPLEXITY_LIMIT_EXCEEDED"
	codeRootFieldLimit     = "ROOT_FIELD_LIMIT_EXCEEDED"
	codeNoIntrospection    = "INTROSPECTION_DISABLED"
	codeOverloaded         = transport.CodeOverloaded
	codeUnknownOutcome     = "UNKNOWN_OUTCOME"
	codeProjectionBehind   = "PROJECTION_BEHIND"
	codeProjectionHalted   = "PROJECTION_HALTED"
	codeObjectDegraded     = "OBJECT_DEGRADED"
	codePositionBeyondHead = "POSITION_BEYOND_HEAD"
	codeVersionBeyondHead  = "VERSION_BEYOND_HEAD"
	codeTimeInFuture       = "TIME_IN_FUTURE"
	codeHistoryTooLong     = "HISTORY_TOO_LONG"
	codeLogDiverged        = "LOG_DIVERGED"
	codeListTooLarge       = "LIST_TOO_LARGE"
	codeTimeout            = transport.CodeTimeout
	codeCancelled          = "CANCELLED"
	codeInternal           = transport.CodeInternal
)

// userError says a refusal to the client. It reports false for everything that is not one.
func userError(err error) (model.UserError, bool) {
	if rejection, ok := errors.AsType[*commands.Rejection](err); ok {
		return refusal(rejection.Code, rejection.Message, rejection.Field), true
	}
	if conflict, ok := errors.AsType[*eventstore.ConflictError](err); ok {
		return refusal(codeVersionConflict, fmt.Sprintf("%s is at version %d", conflict.Stream, conflict.Actual), "expectedVersion"), true
	}
	if _, ok := errors.AsType[*eventstore.ClaimTakenError](err); ok {
		return refusal(codeClaimTaken, "another has this already", ""), true
	}
	if _, ok := errors.AsType[*eventstore.CommandIDReusedError](err); ok {
		return refusal(codeCommandIDReused, "this command id was used before with another command or another input", "commandId"), true
	}
	if invalid, ok := errors.AsType[*eventstore.InvalidRequestError](err); ok {
		return refusal(codeInvalidInput, "the input cannot be stored: "+invalid.Reason, ""), true
	}
	return model.UserError{}, false
}

func refusal(code, message, field string) model.UserError {
	e := model.UserError{Code: code, Message: message}
	if field != "" {
		e.Field = &field
	}
	return e
}

// coded is an error whose text is fit for the client.
func coded(code, format string, args ...any) *gqlerror.Error {
	return &gqlerror.Error{Message: fmt.Sprintf(format, args...), Extensions: map[string]any{"code": code}}
}

// presenter turns every error on its way out into one that the client may see. What is not known to be fit for the
// client is logged whole and goes out as an id that finds it in the log.
type presenter struct{ log *slog.Logger }

func (p presenter) present(ctx context.Context, err error) *gqlerror.Error {
	out, safe := errors.AsType[*gqlerror.Error](err)
	cause := err
	if safe && out.Err != nil {
		cause, safe = out.Err, out.Extensions["code"] != nil
	}
	if safe {
		if out.Extensions["code"] == nil {
			out.Extensions = merge(out.Extensions, map[string]any{"code": codeBadRequest})
		}
		return out
	}
	known := expected(ctx, cause)
	if known == nil && inArguments(ctx) {
		known = coded(codeBadUserInput, "%s", cause)
	}
	if known == nil {
		known = p.mask(ctx, cause)
	}
	if out != nil {
		known.Path, known.Locations = out.Path, out.Locations
	} else {
		known.Path = graphql.GetPath(ctx)
	}
	return known
}

// inArguments reports whether a field's arguments were being read: it has some, and they were not set yet.
func inArguments(ctx context.Context) bool {
	fc := graphql.GetFieldContext(ctx)
	return fc != nil && fc.Field.Field != nil && len(fc.Field.Arguments) > 0 && fc.Args == nil
}

// expected says those errors to the client that are part of the contract, and nil for others.
func expected(ctx context.Context, err error) *gqlerror.Error {
	if e, ok := errors.AsType[*commands.ForbiddenError](err); ok {
		return forbidden(identity.FromContext(ctx), e.Message)
	}
	if e, ok := errors.AsType[*queries.ArgumentError](err); ok {
		return coded(codeBadUserInput, "%s", e.Error())
	}
	if e, ok := errors.AsType[*queries.BehindError](err); ok {
		return detailed(coded(codeProjectionBehind, "the read model %q has not come so far yet", e.Projection), map[string]any{
			"projection": e.Projection, "position": position(e.Position), "wanted": position(e.Wanted), "head": position(e.Head),
			"millisecondsBehind": e.MillisecondsBehind,
		})
	}
	if e, ok := errors.AsType[*queries.HaltedError](err); ok {
		message := "the read model %q is halted and needs an operator"
		if e.Paused {
			message = "the read model %q is paused by an operator"
		}
		return detailed(coded(codeProjectionHalted, message, e.Projection), map[string]any{
			"projection": e.Projection, "position": position(e.Position), "paused": e.Paused,
		})
	}
	if e, ok := errors.AsType[*queries.ParkedError](err); ok {
		return detailed(coded(codeObjectDegraded, "%s", "the first event of this object could not be processed; there is nothing to show until that is mended"),
			map[string]any{"projection": e.Projection, "position": position(e.Position)})
	}
	if e, ok := errors.AsType[*queries.WaitersError](err); ok {
		return coded(codeOverloaded, "%s; try again later", e.Error())
	}
	if e, ok := errors.AsType[*eventstore.BeyondHeadError](err); ok {
		return detailed(coded(codePositionBeyondHead, "%s", e.Error()), map[string]any{"head": position(e.Head)})
	}
	if e, ok := errors.AsType[*eventstore.DivergedError](err); ok {
		return coded(codeLogDiverged, "position %d belongs to another history than this log's", e.Position)
	}
	if _, ok := errors.AsType[*eventstore.HistoryError](err); ok {
		return coded(codeLogDiverged, "the database was restored or failed over while this was decided; nothing was written, send it again")
	}
	if known := expectedOfPast(err); known != nil {
		return known
	}
	return expectedOfCommand(err)
}

func expectedOfPast(err error) *gqlerror.Error {
	if e, ok := errors.AsType[*queries.BeyondStreamError](err); ok {
		return detailed(coded(codeVersionBeyondHead, "%s", e.Error()), map[string]any{"version": e.Version})
	}
	if e, ok := errors.AsType[*eventstore.FutureError](err); ok {
		return detailed(coded(codeTimeInFuture, "%s", e.Error()), map[string]any{"now": e.Now.UTC().Format(time.RFC3339Nano)})
	}
	if e, ok := errors.AsType[*queries.TooLongError](err); ok {
		return detailed(coded(codeHistoryTooLong, "%s", e.Error()), map[string]any{"limit": e.Limit})
	}
	return nil
}

func expectedOfCommand(err error) *gqlerror.Error {
	if e, ok := errors.AsType[*eventstore.UnknownOutcomeError](err); ok {
		out := coded(codeUnknownOutcome, "it is not known whether the command was carried out; send it again with the same commandId to learn")
		if e.CommandID != "" {
			out.Extensions["commandId"] = e.CommandID
		}
		return out
	}
	if e, ok := errors.AsType[*eventstore.OverloadedError](err); ok {
		return detailed(coded(codeOverloaded, "too many commands wait; nothing was written; try again later"),
			map[string]any{"retryAfterMs": e.RetryAfter.Milliseconds()})
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return coded(codeTimeout, "the request took too long")
	}
	if errors.Is(err, context.Canceled) {
		return coded(codeCancelled, "the request was cancelled")
	}
	return nil
}

func (p presenter) mask(ctx context.Context, err error) *gqlerror.Error {
	id := uuid.Must(uuid.NewV7()).String()
	p.log.ErrorContext(ctx, "GraphQL request failed", "id", id, "error", err,
		"path", graphql.GetPath(ctx).String(), "correlation_id", requestOf(ctx).correlationID)
	return detailed(coded(codeInternal, "internal error %s", id), map[string]any{"id": id})
}

// recovered turns a panic into an error that is masked already, since not every way out leads through present.
func (p presenter) recovered(ctx context.Context, cause any) error {
	masked := p.mask(ctx, &panicError{cause: cause, stack: stack()})
	masked.Path = graphql.GetPath(ctx)
	return masked
}

func detailed(e *gqlerror.Error, details map[string]any) *gqlerror.Error {
	e.Extensions = merge(e.Extensions, details)
	return e
}

func merge(into, from map[string]any) map[string]any {
	if into == nil {
		return from
	}
	for k, v := range from {
		into[k] = v
	}
	return into
}
