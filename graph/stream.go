package graph

import (
	"context"

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
// a slow subscriber slows its own producer and nothing else. With each value comes the mark after which a client that
// has it resumes. Values of that kind which the subscriber may not see are left out, each by the rule as it is when the
// value comes; when the identity runs out, the stream ends. An error, or a panic, becomes the last response.
func stream[T any](ctx context.Context, r *root, kind string, produce func(yield func(T, eventstore.Mark) bool) error) <-chan T {
	return streamSeen(ctx, func(yield func(T, eventstore.Mark) bool) error {
		return produce(func(v T, at eventstore.Mark) bool {
			if !r.sees(ctx, kind, v) {
				return ctx.Err() == nil
			}
			return yield(v, at)
		})
	})
}

// streamSeen is stream for who asks by itself whether the subscriber may see what is in a value.
func streamSeen[T any](ctx context.Context, produce func(yield func(T, eventstore.Mark) bool) error) <-chan T {
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
		err = produce(func(v T, at eventstore.Mark) bool {
			if expired = stillValid(ctx); expired != nil {
				return false
			}
			transport.NotePosition(ctx, at.Position, at.String())
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
	stands := r.stands()
	seen, err := r.resume(ctx, nil, nil)
	if err != nil {
		return nil, err
	}
	stands.has.Position = given(seen)
	changes, err := r.Feed.Watch(ctx, view, id)
	if err != nil {
		return nil, err
	}
	return streamSeen(ctx, func(yield func(*R, eventstore.Mark) bool) error {
		if _, err := r.ready(ctx, view, nil, nil, eventstore.Token{}); err != nil {
			return err
		}
		w := watching[R]{standing: stands, view: view, at: at, yield: yield}
		if w.has.Position < r.Progress.ParkedMoved(view) {
			w.has.Position = 0 // the object may have changed since without an event
		}
		var row *R
		under, err := r.inOneEpoch(func() error {
			return r.sharing.Do(ctx, func(ctx context.Context) (err error) {
				row, err = get(ctx, id)
				return err
			})
		})
		if err != nil {
			return err
		}
		if more, err := w.tell(ctx, under, row); err != nil || !more {
			return err
		}
		read := func(ctx context.Context, _ []string) ([]*R, error) {
			row, err := get(ctx, id)
			return []*R{row}, err
		}
		for change := range changes {
			var rows []*R
			under, err := r.inOneEpoch(func() (err error) {
				rows, err = queries.Shared(ctx, r.sharing, r.Progress.Edition(view), []string{id}, change.Position, change.Epoch, read)
				return err
			})
			if err != nil {
				return err
			}
			if more, err := w.tell(ctx, under, rows[0]); err != nil || !more {
				return err
			}
		}
		return nil
	}), nil
}

// watching is what a subscriber knows of an object. One who comes again has its state from before.
type watching[R any] struct {
	standing
	view  string
	at    func(*R) int64
	yield func(*R, eventstore.Mark) bool
	why   *queries.Degradation // of the state that it has
	told  bool                 // here
}

// tell yields the object, as it was read under an epoch, if its state is new. More is false when it is gone, or the client
// is.
func (w *watching[R]) tell(ctx context.Context, under int32, row *R) (more bool, err error) {
	if err := w.take(ctx, under, 0); err != nil {
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
		w.has.Position, w.why, w.told = at, why, true
		return w.yield(row, w.has), nil
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
