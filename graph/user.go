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
	return create(ctx, r.UserCommands, r.userAt, user.NewID(), user.Command(cmd), in.CommandID, in.ExpectedVersion)
}

func (r mutationRoot) RenameUser(ctx context.Context, in generated.RenameUserInput) (*model.UserPayload, error) {
	return handle(ctx, r.UserCommands, r.userAt, in.UserID, user.Command(user.Rename{Name: in.Name}), in.CommandID, in.ExpectedVersion)
}

func (r mutationRoot) ChangeEmail(ctx context.Context, in generated.ChangeEmailInput) (*model.UserPayload, error) {
	return handle(ctx, r.UserCommands, r.userAt, in.UserID, user.Command(user.ChangeEmail{Email: in.Email}), in.CommandID, in.ExpectedVersion)
}

func (r mutationRoot) DeactivateUser(ctx context.Context, in generated.DeactivateUserInput) (*model.UserPayload, error) {
	cmd := user.Deactivate{Reason: text(in.Reason)}
	return handle(ctx, r.UserCommands, r.userAt, in.UserID, user.Command(cmd), in.CommandID, in.ExpectedVersion)
}

func (r queryRoot) User(ctx context.Context, id string, atLeast *eventstore.Token, within *time.Duration) (*userview.User, error) {
	return find(ctx, r.root, userView, r.Resolver.Users.Get, id, atLeast, within)
}

func (r queryRoot) Users(
	ctx context.Context, filter *userview.Filter, orderBy userview.OrderBy,
	first *int, after *string, last *int, before *string, atLeast *eventstore.Token, within *time.Duration,
) (*model.UserConnection, error) {
	page := queries.PageArgs{First: first, After: after, Last: last, Before: before}
	return list(ctx, r.root, userView, r.Resolver.Users, filter, orderBy, page, atLeast, within)
}

func (r subscriptionRoot) UserChanged(ctx context.Context, id string) (<-chan *userview.User, error) {
	return watch(ctx, r.root, userView, r.Users.Get, id, func(u *userview.User) int64 { return u.Position })
}
