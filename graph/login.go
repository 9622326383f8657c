package graph

import (
	"context"
	"net/http"

	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

type upgradeKey struct{}

// login puts into the context who asks. Of an error that was not made for clients they learn nothing.
func (h *Handler) login(ctx context.Context, r *http.Request, payload map[string]any) (context.Context, error) {
	if h.cfg.Login == nil {
		return ctx, nil
	}
	in, _, err := h.cfg.Login(ctx, r, payload)
	if err == nil {
		return in, nil
	}
	if shown, ok := err.(*gqlerror.Error); ok { //nolint:errorlint // one that wraps another was not made for clients
		return nil, shown
	}
	return nil, coded(codeUnauthenticated, "the token is not accepted")
}

func (h *Handler) loginSocket(ctx context.Context, payload transport.InitPayload) (context.Context, *transport.InitPayload, error) {
	r, _ := ctx.Value(upgradeKey{}).(*http.Request)
	in, err := h.login(ctx, r, payload)
	if err != nil {
		return transport.WithWebsocketCloseCode(ctx, 4403), nil, err
	}
	return in, nil, nil
}
