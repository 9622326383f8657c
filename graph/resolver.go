package graph

import (
	"context"
	"time"

	"github.com/headrace/headrace/graph/generated"
	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/commands/user"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/activityview"
	"github.com/headrace/headrace/internal/queries/cartview"
	"github.com/headrace/headrace/internal/queries/orderview"
	"github.com/headrace/headrace/internal/queries/userview"
)

// The stable names of the views that resolvers read.
const (
	cartView     = "cart"
	orderView    = "order"
	userView     = "user"
	activityView = "activity"

	eventKind = "event" // of the log itself, as ids begin
)

// Resolver holds what the answers come from. All fields are needed. It is safe for concurrent use, as they are.
type Resolver struct {
	Store    *eventstore.Store
	Progress *queries.Progress
	Feed     *queries.Feed // over all views that are read here
	Tail     *queries.Tail

	CartCommands  *commands.Handler[cart.Command, cart.Event, cart.State]
	OrderCommands *commands.Handler[order.Command, order.Event, order.State]
	UserCommands  *commands.Handler[user.Command, user.Event, user.State]

	Carts      *cartview.Reader
	Orders     *orderview.Reader
	Users      *userview.Reader
	Activities *activityview.Reader
}

// root is the resolver with what is worked out once.
type root struct {
	*Resolver
	waitDefault time.Duration
	maxPage     int
	maxLiveRows int
	present     presenter
	sharing     *queries.Sharing // of rows among those who follow them
	rules       rules

	cartAt  model.ReadAt[cartview.Cart]
	orderAt model.ReadAt[orderview.Order]
	userAt  model.ReadAt[userview.User]
}

type (
	queryRoot        struct{ *root }
	mutationRoot     struct{ *root }
	subscriptionRoot struct{ *root }
)

func newRoot(r *Resolver, cfg Config) *root {
	root := &root{
		Resolver: r, waitDefault: cfg.WaitDefault, maxPage: cfg.MaxPage, maxLiveRows: cfg.MaxLiveRows,
		present: presenter{cfg.Logger}, sharing: queries.NewSharing(queries.SharingConfig{}), rules: newRules(),
	}
	root.cartAt = readAt(root, cartView, r.Carts.Get)
	root.orderAt = readAt(root, orderView, r.Orders.Get)
	root.userAt = readAt(root, userView, r.Users.Get)
	return root
}

// Query answers gqlgen's executor.
func (r *root) Query() generated.QueryResolver { return queryRoot{r} }

// Mutation answers gqlgen's executor.
func (r *root) Mutation() generated.MutationResolver { return mutationRoot{r} }

// Subscription answers gqlgen's executor.
func (r *root) Subscription() generated.SubscriptionResolver { return subscriptionRoot{r} }

// wait returns when the view includes what the token stands for, at once when there is none.
func (r *root) wait(ctx context.Context, view string, atLeast *eventstore.Token, within *time.Duration) error {
	if atLeast == nil {
		return nil
	}
	ctx, cancel := r.deadline(ctx, within)
	defer cancel()
	return r.Progress.Wait(ctx, view, *atLeast)
}

func (r *root) deadline(ctx context.Context, within *time.Duration) (context.Context, context.CancelFunc) {
	limit := r.waitDefault
	if within != nil {
		limit = *within
	}
	return context.WithTimeout(ctx, limit)
}

// readAt, find and list answer as if what the asker may not see were not there.

// readAt makes the function that payloads read their object with.
func readAt[R any](r *root, view string, get func(context.Context, string) (*R, error)) model.ReadAt[R] {
	return func(ctx context.Context, stream string, token eventstore.Token, within *time.Duration) (*R, error) {
		if err := r.wait(ctx, view, &token, within); err != nil {
			return nil, err
		}
		row, err := get(ctx, stream)
		return visible(ctx, r, view, row, err)
	}
}

// find answers a query for one object.
func find[R any](
	ctx context.Context, r *root, view string, get func(context.Context, string) (*R, error),
	id string, atLeast *eventstore.Token, within *time.Duration,
) (*R, error) {
	if err := r.wait(ctx, view, atLeast, within); err != nil {
		return nil, err
	}
	row, err := get(ctx, id)
	return visible(ctx, r, view, row, err)
}

// reader is what the readers of all views have in common.
type reader[R any, F any, O ~string] interface {
	List(ctx context.Context, filter F, by O, page queries.PageArgs) (queries.Slice[R], error)
	Count(ctx context.Context, filter F) (int64, error)
}

// given is an optional argument, or the zero value.
func given[T any](optional *T) (v T) {
	if optional != nil {
		v = *optional
	}
	return v
}

// list answers a query for a page.
func list[R any, F any, O ~string](
	ctx context.Context, r *root, view string, from reader[R, F, O], filter *F, by O, page queries.PageArgs,
	atLeast *eventstore.Token, within *time.Duration,
) (*model.Connection[R], error) {
	if err := r.wait(ctx, view, atLeast, within); err != nil {
		return nil, err
	}
	f, err := narrowed(ctx, r, view, given(filter))
	if err != nil {
		return nil, err
	}
	slice, err := from.List(ctx, f, by, page)
	if err != nil {
		return nil, err
	}
	count := func(ctx context.Context) (int64, error) { return from.Count(ctx, f) }
	return model.NewConnection(slice, count), nil
}

// handle carries out a command on an object that should be there.
func handle[C commands.Command, E eventstore.Payload, S, R any](
	ctx context.Context, h *commands.Handler[C, E, S], read model.ReadAt[R],
	stream string, cmd C, commandID *string, version *int,
) (*model.Payload[R], error) {
	call, err := newCall(ctx, commandID, version)
	if err != nil {
		return answer(eventstore.Receipt{}, err, read)
	}
	receipt, err := h.Handle(ctx, stream, cmd, call)
	return answer(receipt, err, read)
}

// create carries out a command that begins an object.
func create[C commands.Command, E eventstore.Payload, S, R any](
	ctx context.Context, h *commands.Handler[C, E, S], read model.ReadAt[R],
	stream string, cmd C, commandID *string, version *int,
) (*model.Payload[R], error) {
	call, err := newCall(ctx, commandID, version)
	if err != nil {
		return answer(eventstore.Receipt{}, err, read)
	}
	receipt, err := h.Create(ctx, stream, cmd, call)
	return answer(receipt, err, read)
}

func answer[R any](receipt eventstore.Receipt, err error, read model.ReadAt[R]) (*model.Payload[R], error) {
	if err == nil {
		return model.NewPayload(receipt, read), nil
	}
	if refused, ok := userError(err); ok {
		return model.Refused[R](refused), nil
	}
	return nil, err
}
