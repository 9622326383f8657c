package auth_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/headrace/headrace/graph/auth"
	"github.com/headrace/headrace/internal/identity"
)

func request(headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/graphql", nil)
	for _, value := range headers {
		r.Header.Add("Authorization", value)
	}
	return r
}

func TestWhereTheTokenComesFrom(t *testing.T) {
	t.Parallel()
	p := edPair(t, "d")
	v, _ := verifier(t, auth.Config{KeysURL: publish(t, keySet(t, p.jwk(t, nil))).url})
	ada, bob := "Bearer "+p.sign(t, good(nil)), "bearer  "+p.sign(t, good(map[string]any{"sub": "user-bob"}))
	for name, c := range map[string]struct {
		request *http.Request
		payload map[string]any
		want    string // the subject; "refused"
	}{
		"header":                     {request(ada), nil, "user-ada"},
		"a small scheme":             {request(bob), nil, "user-bob"},
		"payload":                    {request(), map[string]any{"authorization": ada}, "user-ada"},
		"payload, capital":           {request(), map[string]any{"Authorization": ada}, "user-ada"},
		"payload before header":      {request(ada), map[string]any{"authorization": bob}, "user-bob"},
		"header without payload":     {request(ada), map[string]any{"other": "x", "authorization": nil}, "user-ada"},
		"none":                       {request(), nil, ""},
		"none in the payload":        {request(), map[string]any{}, ""},
		"no text in the payload":     {request(ada), map[string]any{"authorization": 7}, "refused"},
		"a bad one is not passed by": {request(ada), map[string]any{"authorization": "Bearer x"}, "refused"},
		"another scheme":             {request("Basic YTpi"), nil, "refused"},
		"no scheme":                  {request(p.sign(t, good(nil))), nil, "refused"},
		"no token":                   {request("Bearer "), nil, "refused"},
		"empty":                      {request(""), nil, "refused"},
		"two":                        {request(ada, bob), nil, "refused"},
	} {
		ctx, expires, err := v.Login(t.Context(), c.request, c.payload)
		if c.want == "refused" {
			var shown *gqlerror.Error
			require.ErrorAs(t, err, &shown, name)
			require.Equal(t, "UNAUTHENTICATED", shown.Extensions["code"], name)
			continue
		}
		require.NoError(t, err, name)
		who := identity.FromContext(ctx)
		require.Equal(t, c.want, who.Subject, name)
		require.Equal(t, who.Expires, expires, name)
		require.Equal(t, c.want == "", who.Anonymous(), name)
		require.Equal(t, c.want == "", expires.IsZero(), name)
	}
}

func TestOffTakesTheActorAsItIs(t *testing.T) {
	t.Parallel()
	r := request()
	r.Header.Set("X-Actor", "ada")
	ctx, expires, err := auth.Off(t.Context(), r, nil)
	require.NoError(t, err)
	who := identity.FromContext(ctx)
	require.True(t, who.Unrestricted())
	require.Equal(t, "ada", who.Subject)
	require.Equal(t, time.Time{}, expires)
}
