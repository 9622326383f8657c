package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/graph/throttle"
)

func TestTheServerLetsInWhoHasAToken(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	set := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
	if err := os.WriteFile(path, []byte(set), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, Config{Auth: Auth{
		Mode: authJWT, KeysFile: path, Issuer: "https://id.example.org/", Audience: "shop", RolesClaim: "groups",
		IdentityRate: throttle.Rate{PerSecond: 0.001, Burst: 3},
	}})
	ask := func(subject string, groups ...string) string {
		t.Helper()
		token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
			"iss": "https://id.example.org/", "aud": "shop", "sub": subject, "groups": groups, "exp": time.Now().Add(time.Hour).Unix(),
		})
		token.Header["kid"] = "k"
		text, err := token.SignedString(private)
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(map[string]any{"query": openCart, "variables": map[string]any{"owner": "ada"}})
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/graphql", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Actor", "ada") // counts for nothing
		if subject != "" {
			request.Header.Set("Authorization", "Bearer "+text)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var answer struct {
			Errors []struct{ Extensions struct{ Code string } }
		}
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Errors) == 0 {
			return ""
		}
		return answer.Errors[0].Extensions.Code
	}
	for _, c := range []struct {
		subject string
		groups  []string
		want    string
	}{
		{"", nil, "UNAUTHENTICATED"},
		{"eve", []string{"customer"}, "FORBIDDEN"},
		{"clerk", []string{"staff"}, ""},
		{"ada", nil, ""},
		{"ada", nil, ""},
		{"ada", nil, ""},
		{"ada", nil, "RATE_LIMITED"},
		{"clerk", []string{"staff"}, ""},
	} {
		if got := ask(c.subject, c.groups...); got != c.want {
			t.Errorf("%q with %v: %q, want %q", c.subject, c.groups, got, c.want)
		}
	}
}

func TestThatNobodyIsAuthenticatedIsSaidAloud(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	var config graph.Config
	verifier, err := (&Auth{Mode: authOff}).guard(t.Context(), &config, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || verifier != nil || config.Login == nil {
		t.Fatalf("got %v, %v, %+v", verifier, err, config)
	}
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "AUTH=off") {
		t.Errorf("the log says %s", log.String())
	}
}

func TestDevelopmentIsOpenUnlessItIsToldOtherwise(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		auth   Auth
		unless string
		want   string // "" when it is refused
	}{
		{Auth{}, authOff, authOff},
		{Auth{}, authJWT, ""},
		{Auth{Mode: authJWT}, authOff, ""},
		{Auth{Mode: authOff}, authJWT, authOff},
		{Auth{KeysFile: "k", Issuer: "i", Audience: "a"}, authJWT, authJWT},
		{Auth{Mode: authJWT, KeysURL: "https://k", Issuer: "i", Audience: "a"}, authOff, authJWT},
		{Auth{KeysURL: "https://k", Audience: "a"}, authJWT, ""},
		{Auth{KeysURL: "https://k", Issuer: "i"}, authJWT, ""},
	} {
		auth := c.auth
		err := auth.ready(c.unless)
		if (err == nil) != (c.want != "") || (err == nil && auth.Mode != c.want) {
			t.Errorf("%+v, by default %s: %s, %v", c.auth, c.unless, auth.Mode, err)
		}
	}
}
