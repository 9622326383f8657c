package graph

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/headrace/headrace/internal/identity"
)

// requestLog writes one line for each operation when it has ended: what it was called and what came of it, and never what
// it said. Neither the document nor the variables are in it, which hold what clients keep to themselves.
type requestLog struct {
	log   *slog.Logger
	level slog.Level
}

func newRequestLog(cfg *Config) requestLog {
	if cfg.LogRequests {
		return requestLog{cfg.Logger, slog.LevelInfo}
	}
	return requestLog{cfg.Logger, slog.LevelDebug}
}

const requestLogName = "RequestLog"

// aroundOperations writes the line of an operation that comes to be executed, or refused by who asks for it.
func (l requestLog) aroundOperations(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	if !l.log.Enabled(ctx, l.level) {
		return next(ctx)
	}
	oc := graphql.GetOperationContext(ctx)
	oc.Stats.SetExtension(requestLogName, true)
	responses := next(ctx)
	if oc.Operation.Operation == ast.Subscription {
		return l.stream(ctx, oc, responses)
	}
	return func(ctx context.Context) *graphql.Response {
		response := responses(ctx)
		if response != nil {
			l.line(ctx, oc, codes(response.Errors))
		}
		return response
	}
}

// stream writes the line of a subscription at its end, which may be that its client went away.
func (l requestLog) stream(ctx context.Context, oc *graphql.OperationContext, responses graphql.ResponseHandler) graphql.ResponseHandler {
	var mu sync.Mutex
	var results int
	var failed []string
	end := sync.OnceFunc(func() {
		mu.Lock()
		defer mu.Unlock()
		l.line(ctx, oc, failed, slog.Int("results", results))
	})
	forget := context.AfterFunc(ctx, end)
	return func(ctx context.Context) *graphql.Response {
		response := responses(ctx)
		if response == nil {
			forget()
			end()
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		results++
		if len(response.Errors) > 0 {
			failed = codes(response.Errors) // of the last: a stream ends with what went wrong
		}
		return response
	}
}

// refused writes the line of an operation that was refused before it came so far: by the parser, the validator or a limit.
func (l requestLog) refused(ctx context.Context, response *graphql.Response) {
	if !graphql.HasOperationContext(ctx) || !l.log.Enabled(ctx, l.level) {
		return
	}
	if oc := graphql.GetOperationContext(ctx); oc.Stats.GetExtension(requestLogName) == nil {
		l.line(ctx, oc, codes(response.Errors))
	}
}

func (l requestLog) line(ctx context.Context, oc *graphql.OperationContext, codes []string, more ...slog.Attr) {
	name, kind := oc.OperationName, "unknown"
	if oc.Operation != nil {
		name, kind = oc.Operation.Name, string(oc.Operation.Operation)
	}
	now := time.Now()
	line := slog.NewRecord(now, l.level, "GraphQL operation", 0) // of no use is where in the code that is
	line.AddAttrs(
		slog.String("operation", name[:min(len(name), maxName)]),
		slog.String("kind", kind),
		slog.Duration("duration", now.Sub(oc.Stats.OperationStart)),
		slog.String("actor", identity.FromContext(ctx).Subject),
		slog.String("correlation_id", requestOf(ctx).correlationID))
	if len(codes) > 0 {
		line.AddAttrs(slog.Any("codes", codes))
	}
	line.AddAttrs(more...)
	_ = l.log.Handler().Handle(ctx, line)
}

// codes are those of the errors, each once.
func codes(errs gqlerror.List) []string {
	var found []string
	for _, e := range errs {
		code, _ := e.Extensions["code"].(string)
		if !slices.Contains(found, code) {
			found = append(found, code)
		}
	}
	return found
}
