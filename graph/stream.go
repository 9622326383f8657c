package graph

import (
	"context"
	"errors"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/headrace/headrace/graph/transport"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/queries"
)

// streamEnd carries the error for which a subscription ended from its goroutine to its last response.
type streamEnd struct{ err error }

type streamEndKey struct{}

// stream runs produce until it returns or the subscriber has gone, when yield reports false. The channel is unbuffered:
// a slow subscriber slows its own producer and nothing else. At is the position of a value, after which a client that
// has it resumes. Values of that kind which the subscriber may not see are left out, each by the rule as it is when the
// value comes; when the identity runs out, the stream ends. An error, or a panic, becomes the last response.
func stream[T any](ctx context.Context, r *root, kind string, at func(T) int64, produce func(yield func(T) bool) error) <-chan T {
	return streamSeen(ctx, r, at, func(yield func(T) bool) error {
		return produce(func(v T) bool {
			if !r.sees(ctx, kind, v) {
				return ctx.Err() == nil
			}
			return yield(v)
		})
	})
}

// streamSeen is stream for who asks by itself whether the subscriber may see what is in a value.
func streamSeen[T any](ctx context.Context, r *root, at func(T) int64, produce func(yield func(T) bool) error) <-chan T {
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
			position := at(v)
			transport.NotePosition(ctx, position, r.Store.Mark(position).String())
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

// watch tells of an object: as it is now, if it is there, and after each change, the newest. It ends when the object that
// it told of is gone. Of one that may not be seen it tells nothing, as of one that is not there; who saw it before is told
// that this is over. Those who watch the same object are answered by one reading, so get must not depend on who asks.
func watch[R any](
	ctx context.Context, r *root, view string, get func(context.Context, string) (*R, error), id string, at func(*R) int64,
) (<-chan *R, error) {
	seen, err := r.resume(ctx, nil, nil)
	if err != nil {
		return nil, err
	}
	changes, err := r.Feed.Watch(ctx, view, id)
	if err != nil {
		return nil, err
	}
	return streamSeen(ctx, r, at, func(yield func(*R) bool) error {
		if _, err := r.ready(ctx, view, nil, nil, eventstore.Token{}); err != nil {
			return err
		}
		w := watching[R]{root: r, view: view, at: at, yield: yield, has: r.Store.Mark(given(seen))}
		if w.has.Position < r.Progress.ParkedMoved(view) {
			w.has = r.Store.Mark(0) // the object may have changed since without an event
		}
		var row *R
		err := r.sharing.Do(ctx, func(ctx context.Context) (err error) {
			row, err = get(ctx, id)
			return err
		})
		if err != nil {
			return err
		}
		if more, err := w.tell(ctx, row); err != nil || !more {
			return err
		}
		read := func(ctx context.Context, _ []string) ([]*R, error) {
			row, err := get(ctx, id)
			return []*R{row}, err
		}
		for change := range changes {
			rows, err := queries.Shared(ctx, r.sharing, r.Progress.Edition(view), []string{id}, change.Position, read)
			if err != nil {
				return err
			}
			if more, err := w.tell(ctx, rows[0]); err != nil || !more {
				return err
			}
		}
		return nil
	}), nil
}

// watching is what a subscriber knows of an object.
type watching[R any] struct {
	root  *root
	view  string
	at    func(*R) int64
	yield func(*R) bool
	has   eventstore.Mark      // of the state that it has; one who comes again has it from before
	why   *queries.Degradation // of that state
	told  bool                 // here
}

// tell yields the object if its state is new. More is false when it is gone, or the client is.
func (w *watching[R]) tell(ctx context.Context, row *R) (more bool, err error) {
	if err := w.stillHas(ctx); err != nil {
		return false, err
	}
	if row == nil {
		return !w.told, nil
	}
	row = marked(w.root, w.view, row)
	why := degradation(row)
	switch at, sees := w.at(row), w.root.sees(ctx, w.view, row); {
	case at <= w.has.Position && same(why, w.why):
		return true, nil
	case !sees && w.told:
		return false, forbidden(identity.FromContext(ctx), "this is no longer yours to see")
	case !sees:
		return true, nil
	default:
		w.has, w.why, w.told = w.root.Store.Mark(at), why, true
		return w.yield(row), nil
	}
}

// degradation says why a row is degraded that was marked; nil: it is not.
func degradation[R any](row *R) *queries.Degradation {
	if d, ok := any(row).(interface{ Why() *queries.Degradation }); ok {
		return d.Why()
	}
	return nil
}

func same(a, b *queries.Degradation) bool { return a == b || (a != nil && b != nil && *a == *b) }

// stillHas tells whether the state that the subscriber has is one that the log still leads to.
func (w *watching[R]) stillHas(ctx context.Context) error {
	now := w.root.Store.Mark(w.has.Position)
	if now == w.has {
		return nil
	}
	err := w.root.Store.CheckMark(ctx, w.has)
	if beyond, ok := errors.AsType[*eventstore.BeyondHeadError](err); ok {
		return &eventstore.DivergedError{Position: beyond.Position, Reason: "the log was restored to before it"}
	}
	if err == nil {
		w.has = now
	}
	return err
}

// aroundStreams lets the error for which a subscription ended be its last response.
func (p presenter) aroundStreams(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	end := &streamEnd{}
	responses := next(context.WithValue(ctx, streamEndKey{}, end))
	return func(ctx context.Context) *graphql.Response {
		response := responses(ctx)
		if response == nil && ctx.Err() == nil && end.err != nil {
			err := end.err
			end.err = nil
			return &graphql.Response{Errors: gqlerror.List{p.present(ctx, err)}}
		}
		return response
	}
}
