package graph

import (
	"context"
	"time"

	"github.com/headrace/headrace/graph/generated"
	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/commands/user"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/userview"
)

func (r mutationRoot) RegisterUser(ctx context.Context, in generated.RegisterUserInput) (*model.UserPayload, error) {
	cmd := user.Register{Email: in.Email, Name: in.Name}
	return create(ctx, r.UserCommands, r.users, user.NewID(), user.Command(cmd), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r mutationRoot) RenameUser(ctx context.Context, in generated.RenameUserInput) (*model.UserPayload, error) {
	return handle(ctx, r.UserCommands, r.users, in.UserID, user.Command(user.Rename{Name: in.Name}), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r mutationRoot) ChangeEmail(ctx context.Context, in generated.ChangeEmailInput) (*model.UserPayload, error) {
	return handle(ctx, r.UserCommands, r.users, in.UserID, user.Command(user.ChangeEmail{Email: in.Email}), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r mutationRoot) DeactivateUser(ctx context.Context, in generated.DeactivateUserInput) (*model.UserPayload, error) {
	cmd := user.Deactivate{Reason: text(in.Reason)}
	return handle(ctx, r.UserCommands, r.users, in.UserID, user.Command(cmd), in.CommandID, in.ExpectedVersion, in.DryRun)
}

func (r queryRoot) User(
	ctx context.Context, id string, asOf *queries.AsOf, _ *eventstore.Token, within *time.Duration, onTimeout *model.OnTimeout,
) (*userview.User, error) {
	return find(ctx, r.users, id, asOf, within, onTimeout)
}

func (r queryRoot) Users(
	ctx context.Context, filter *userview.Filter, orderBy userview.OrderBy,
	first *int, after *string, last *int, before *string, _ *eventstore.Token, within *time.Duration, onTimeout *model.OnTimeout,
) (*model.UserConnection, error) {
	page := queries.PageArgs{First: first, After: after, Last: last, Before: before}
	return list(ctx, r.root, userView, r.Resolver.Users, filter, orderBy, page, within, onTimeout)
}

func (r subscriptionRoot) UserChanged(ctx context.Context, id string) (<-chan *userview.User, error) {
	return watch(ctx, r.root, userView, r.Users.Get, id, func(u *userview.User) int64 { return u.Position })
}
