package graph

import (
	"context"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/headrace/headrace/graph/transport"
	"github.com/headrace/headrace/internal/identity"
)

// streamEnd carries the error for which a subscription ended from its goroutine to its last response.
type streamEnd struct{ err error }

type streamEndKey struct{}

// stream runs produce until it returns or the subscriber has gone, when yield reports false. The channel is unbuffered:
// a slow subscriber slows its own producer and nothing else. At is the position of a value, after which a client that
// has it resumes. Values of that kind which the subscriber may not see are left out, each by the rule as it is when the
// value comes; when the identity runs out, the stream ends. An error, or a panic, becomes the last response.
func stream[T any](ctx context.Context, r *root, kind string, at func(T) int64, produce func(yield func(T) bool) error) <-chan T {
	out := make(chan T)
	end, _ := ctx.Value(streamEndKey{}).(*streamEnd)
	go func() {
		defer close(out) // after end is set, so that who sees the end of the channel sees the error
		var err error
		defer func() {
			if cause := recover(); cause != nil {
				err = &panicError{cause: cause, stack: stack()}
			}
			if end != nil {
				end.err = err
			}
		}()
		var expired error
		err = produce(func(v T) bool {
			if expired = stillValid(ctx); expired != nil {
				return false
			}
			if !r.sees(ctx, kind, v) {
				return ctx.Err() == nil
			}
			transport.NotePosition(ctx, at(v))
			select {
			case out <- v:
				return true
			case <-ctx.Done():
				return false
			}
		})
		if err == nil {
			err = expired
		}
	}()
	return out
}

// watch tells of an object: as it is now, if it is there, and after each change, the newest. Of one that may not be seen
// it tells nothing, as of one that is not there; who saw it before is told that this is over.
func watch[R any](
	ctx context.Context, r *root, view string, get func(context.Context, string) (*R, error), id string, at func(*R) int64,
) (<-chan *R, error) {
	changes, err := r.Feed.Watch(ctx, view, id)
	if err != nil {
		return nil, err
	}
	return stream(ctx, r, view, at, func(yield func(*R) bool) error {
		told := int64(0)
		for {
			row, err := get(ctx, id)
			if err != nil {
				return err
			}
			if row != nil && at(row) > told {
				if told > 0 && !r.sees(ctx, view, row) {
					return forbidden(identity.FromContext(ctx), "this is no longer yours to see")
				}
				if r.sees(ctx, view, row) {
					told = at(row)
				}
				if !yield(row) {
					return nil
				}
			}
			if _, more := <-changes; !more {
				return nil
			}
		}
	}), nil
}

// aroundStreams bounds the subscriptions of a socket and lets the error for which one ended be its last response.
func (h *Handler) aroundStreams(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	if graphql.GetOperationContext(ctx).Operation.Operation != ast.Subscription {
		return next(ctx)
	}
	req := requestOf(ctx)
	if int(req.subscriptions.Add(1)) > h.cfg.MaxSocketStreams {
		req.subscriptions.Add(-1)
		return graphql.OneShot(&graphql.Response{Errors: gqlerror.List{
			coded(codeTooManyStreams, "at most %d subscriptions may be open on one socket", h.cfg.MaxSocketStreams),
		}})
	}
	context.AfterFunc(ctx, func() { req.subscriptions.Add(-1) })
	end := &streamEnd{}
	responses := next(context.WithValue(ctx, streamEndKey{}, end))
	return func(ctx context.Context) *graphql.Response {
		response := responses(ctx)
		if response == nil && ctx.Err() == nil && end.err != nil {
			err := end.err
			end.err = nil
			return &graphql.Response{Errors: gqlerror.List{h.present.present(ctx, err)}}
		}
		return response
	}
}
