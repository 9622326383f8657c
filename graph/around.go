package graph

import (
	"context"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
)

// around is what is ours around each operation and each response. It is one step of the executor for each of the two, since
// every step costs a request some closures, whether it has anything to do or not.
type around struct {
	requests requestLog
	rules    rules
	quota    *quota
	present  presenter
}

// operation refuses what may not be asked, bounds subscriptions and tells how they ended, and leaves a line in the log.
func (a around) operation(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	oc := graphql.GetOperationContext(ctx)
	if refused := a.rules.refuse(ctx, oc); len(refused) > 0 {
		next = func(context.Context) graphql.ResponseHandler {
			return graphql.OneShot(&graphql.Response{Errors: refused})
		}
	} else if oc.Operation.Operation == ast.Subscription {
		return a.requests.aroundOperations(ctx, func(ctx context.Context) graphql.ResponseHandler {
			return a.quota.aroundStreams(ctx, func(ctx context.Context) graphql.ResponseHandler {
				return a.present.aroundStreams(ctx, next)
			})
		})
	}
	return a.requests.aroundOperations(ctx, next)
}

// response adds how fresh the answer is, keeps one that has only errors short, and leaves the line of an operation that
// did not come to be executed.
func (a around) response(ctx context.Context, next graphql.ResponseHandler) *graphql.Response {
	response := next(ctx)
	if response == nil {
		return nil
	}
	if told := readingOf(ctx).take(); told != nil {
		response.Extensions = merge(response.Extensions, map[string]any{"freshness": told})
	}
	if response.Data == nil && len(response.Errors) > maxErrors {
		response.Errors = response.Errors[:maxErrors]
	}
	if len(response.Errors) > 0 {
		a.requests.refused(ctx, response)
	}
	return response
}

// rootFields calls each for the fields of an operation's root, fragments and conditions resolved.
func rootFields(oc *graphql.OperationContext, object string, each func(*ast.Field)) {
	for _, selection := range oc.Operation.SelectionSet {
		if field, plain := selection.(*ast.Field); !plain || len(field.Directives) > 0 {
			for _, collected := range graphql.CollectFields(oc, oc.Operation.SelectionSet, []string{object}) {
				each(collected.Field)
			}
			return
		}
	}
	for _, selection := range oc.Operation.SelectionSet {
		each(selection.(*ast.Field))
	}
}
