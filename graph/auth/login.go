package auth

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/headrace/headrace/internal/identity"
)

// Login is for graph.Config.Login. The token is that of the payload of connection_init, as
//
//	{"authorization": "Bearer …"}
//
// with a small or a capital A, or else that of the request's Authorization header. Who sends none is nobody, and may do
// what everybody may; who sends one that is not accepted is refused with UNAUTHENTICATED, and told why.
func (v *Verifier) Login(ctx context.Context, r *http.Request, payload map[string]any) (context.Context, time.Time, error) {
	token, sent, err := bearer(r, payload)
	if err == nil && !sent {
		return identity.NewContext(ctx, identity.Identity{}), time.Time{}, nil
	}
	var who identity.Identity
	if err == nil {
		who, err = v.Verify(ctx, token)
	}
	if err != nil {
		return nil, time.Time{}, unauthenticated(err)
	}
	return identity.NewContext(ctx, who), who.Expires, nil
}

// bearer finds the token, if one was sent.
func bearer(r *http.Request, payload map[string]any) (token string, sent bool, err error) {
	for _, name := range []string{"authorization", "Authorization"} {
		value, ok := payload[name]
		if !ok || value == nil {
			continue
		}
		text, ok := value.(string)
		if !ok {
			return "", true, refused("authorization is no text")
		}
		return scheme(text)
	}
	switch values := r.Header.Values("Authorization"); len(values) {
	case 0:
		return "", false, nil
	case 1:
		return scheme(values[0])
	default:
		return "", true, refused("there is more than one")
	}
}

func scheme(value string) (string, bool, error) {
	name, token, _ := strings.Cut(strings.TrimSpace(value), " ")
	if !strings.EqualFold(name, "Bearer") || strings.TrimSpace(token) == "" {
		return "", true, refused("authorization must be Bearer and a token")
	}
	return strings.TrimSpace(token), true, nil
}

func unauthenticated(err error) error {
	refusal, ok := errors.AsType[*RefusedError](err)
	if !ok {
		return err
	}
	return &gqlerror.Error{Message: refusal.Error(), Extensions: map[string]any{"code": "UNAUTHENTICATED"}}
}
