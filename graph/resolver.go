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
	"github.com/headrace/headrace/internal/queries/fulfilmentview"
	"github.com/headrace/headrace/internal/queries/orderview"
	"github.com/headrace/headrace/internal/queries/userview"
)

// The stable names of the views that resolvers read.
const (
	cartView       = "cart"
	orderView      = "order"
	userView       = "user"
	fulfilmentView = "fulfilment"
	activityView   = "activity"
)

// Resolver holds what the answers come from. All fields but Replicas are needed. It is safe for concurrent use, as they are.
type Resolver struct {
	Store    *eventstore.Store
	Progress *queries.Progress
	Feed     *queries.Feed // over all views that are read here
	Tail     *queries.Tail
	Replicas *queries.Replicas // that answer queries of views where they can; nil: there are none

	CartCommands  *commands.Handler[cart.Command, cart.Event, cart.State]
	OrderCommands *commands.Handler[order.Command, order.Event, order.State]
	UserCommands  *commands.Handler[user.Command, user.Event, user.State]

	Carts       *cartview.Reader
	Orders      *orderview.Reader
	Users       *userview.Reader
	Fulfilments *fulfilmentview.Reader
	Activities  *activityview.Reader
}

// root is the resolver with what is worked out once.
type root struct {
	*Resolver
	maxPage     int
	maxLiveRows int
	maxFold     int
	present     presenter
	sharing     *queries.Sharing // of rows among those who follow them
	rules       rules
	histories   map[string]history              // by the name that begins the ids
	streams     map[string]func(row any) string // by view, where a row is what came of one stream

	carts       object[cartview.Cart]
	orders      object[orderview.Order]
	users       object[userview.User]
	fulfilments object[fulfilmentview.Fulfilment]
}

type (
	queryRoot        struct{ *root }
	mutationRoot     struct{ *root }
	subscriptionRoot struct{ *root }
)

func newRoot(r *Resolver, cfg Config) *root {
	root := &root{
		Resolver: r, maxPage: cfg.MaxPage, maxFold: cfg.MaxFold,
		maxLiveRows: cfg.MaxLiveRows, present: presenter{cfg.Logger},
		sharing: queries.NewSharing(queries.SharingConfig{Epoch: func() int32 { return r.Store.Mark(0).Epoch }}),
		rules:   newRules(), histories: map[string]history{}, streams: map[string]func(any) string{},
	}
	root.carts = newObject(root, cartview.View(), r.Carts.Get)
	root.orders = newObject(root, orderview.View(), r.Orders.Get)
	root.users = newObject(root, userview.View(), r.Users.Get)
	root.fulfilments = newObject(root, fulfilmentview.View(), r.Fulfilments.Get)
	return root
}

// Query answers gqlgen's executor.
func (r *root) Query() generated.QueryResolver { return queryRoot{r} }

// Mutation answers gqlgen's executor.
func (r *root) Mutation() generated.MutationResolver { return mutationRoot{r} }

// Subscription answers gqlgen's executor.
func (r *root) Subscription() generated.SubscriptionResolver { return subscriptionRoot{r} }

// list and what is in object.go answer as if what the asker may not see were not there.

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
	within *time.Duration, onTimeout *model.OnTimeout,
) (*model.Connection[R], error) {
	ctx, err := r.ready(ctx, view, within, onTimeout, eventstore.Token{})
	if err != nil {
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
	if r.Progress.AnyDegraded() {
		for i := range slice.Rows {
			slice.Rows[i] = *marked(r, view, &slice.Rows[i])
		}
	}
	count := func(ctx context.Context) (int64, error) { return from.Count(ctx, f) }
	return model.NewConnection(slice, count), nil
}

// handle carries out a command on an object that should be there.
func handle[C commands.Command, E eventstore.Payload, S, R any](
	ctx context.Context, h *commands.Handler[C, E, S], o object[R],
	stream string, cmd C, commandID *string, version *int, dryRun *bool,
) (*model.Payload[R], error) {
	return carryOut(ctx, o, h.Handle, h.DryRun, stream, cmd, commandID, version, dryRun)
}

// create carries out a command that begins an object.
func create[C commands.Command, E eventstore.Payload, S, R any](
	ctx context.Context, h *commands.Handler[C, E, S], o object[R],
	stream string, cmd C, commandID *string, version *int, dryRun *bool,
) (*model.Payload[R], error) {
	return carryOut(ctx, o, h.Create, h.DryCreate, stream, cmd, commandID, version, dryRun)
}

// carryOut has a command done, or on a dry run judged, and answers.
func carryOut[C commands.Command, R any](
	ctx context.Context, o object[R],
	do func(context.Context, string, C, commands.Call) (eventstore.Receipt, error),
	judge func(context.Context, string, C, commands.Call) (commands.DryRun, error),
	stream string, cmd C, commandID *string, version *int, dryRun *bool,
) (*model.Payload[R], error) {
	call, err := newCall(ctx, commandID, version)
	if dryRun != nil && *dryRun {
		dry := commands.DryRun{Stream: stream}
		if err == nil {
			dry, err = judge(ctx, stream, cmd, call)
		}
		return wouldAnswer(o, dry, err)
	}
	var receipt eventstore.Receipt
	if err == nil {
		receipt, err = do(ctx, stream, cmd, call)
	}
	if err == nil {
		return model.NewPayload(receipt, o.at(receipt)), nil
	}
	if refused, ok := userError(err); ok {
		return model.Refused[R](refused), nil
	}
	return nil, err
}

// wouldAnswer answers a dry run.
func wouldAnswer[R any](o object[R], dry commands.DryRun, err error) (*model.Payload[R], error) {
	shown := model.NewDryRun(dry)
	if err == nil {
		return model.Would(shown, o.would(dry)), nil
	}
	refused, ok := userError(err)
	if !ok {
		return nil, err
	}
	payload := model.Refused[R](refused)
	payload.DryRun = shown
	return payload, nil
}
