package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/graph/auth"
	"github.com/headrace/headrace/internal/identity"
)

func TestTokensOfEachAlgorithmAreAccepted(t *testing.T) {
	t.Parallel()
	pairs := []pair{rsaPair(t, "r"), ecPair(t, "e"), edPair(t, "d")}
	v, _ := verifier(t, auth.Config{KeysURL: publish(t, keySet(t, pairs[0].jwk(t, nil), pairs[1].jwk(t, nil), pairs[2].jwk(t, nil))).url})
	for _, p := range pairs {
		who, err := v.Verify(t.Context(), p.sign(t, good(nil)))
		require.NoError(t, err)
		require.Equal(t, identity.Identity{
			Subject: "user-ada", Roles: []string{"customer", "staff"}, Expires: who.Expires,
		}, who)
		require.False(t, who.Unrestricted())
		require.True(t, who.Expires.Equal(noon.Add(90*time.Second)), "expiry and leeway: %v", who.Expires)
	}
}

func TestWhatIsWrongWithAToken(t *testing.T) {
	t.Parallel()
	r, e := rsaPair(t, "r"), ecPair(t, "e")
	v, _ := verifier(t, auth.Config{KeysURL: publish(t, keySet(t, r.jwk(t, nil), e.jwk(t, nil))).url})
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(r.private.Public()))})
	valid := r.sign(t, good(nil))
	parts := strings.Split(valid, ".")
	claims := func(changes map[string]any) string { return r.sign(t, good(changes)) }
	for name, c := range map[string]struct{ token, reason string }{
		"none":                   {r.signWith(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good(nil), nil), "signature"},
		"the public key as HMAC": {r.signWith(t, jwt.SigningMethodHS256, public, good(nil), nil), "signature"},
		"another hash":           {r.signWith(t, jwt.SigningMethodRS512, r.private, good(nil), nil), "signature"},
		"padding of another":     {r.signWith(t, jwt.SigningMethodPS256, r.private, good(nil), nil), "signature"},
		"another kind of key":    {e.signWith(t, jwt.SigningMethodES256, e.private, good(nil), map[string]any{"kid": "r"}), "known key"},
		"another key":            {rsaPair(t, "r").sign(t, good(nil)), "signature"},
		"an unknown key":         {rsaPair(t, "x").sign(t, good(nil)), "known key"},
		"no key id of two":       {r.signWith(t, r.method, r.private, good(nil), map[string]any{"kid": nil}), "known key"},
		"a key id that is none":  {r.signWith(t, r.method, r.private, good(nil), map[string]any{"kid": 7}), "known key"},
		"critical parts":         {r.signWith(t, r.method, r.private, good(nil), map[string]any{"crit": []string{"x"}}), "signature"},
		"changed":                {parts[0] + "." + strings.Split(claims(map[string]any{"sub": "eve"}), ".")[1] + "." + parts[2], "signature"},
		"no signature":           {parts[0] + "." + parts[1] + ".", "signature"},
		"cut":                    {parts[0] + "." + parts[1], "malformed"},
		"nothing":                {"", "malformed"},
		"no token":               {"a.b.c", "malformed"},
		"too long":               {claims(map[string]any{"pad": strings.Repeat("x", 9000)}), "too long"},
		"expired":                {claims(map[string]any{"exp": noon.Add(-31 * time.Second).Unix()}), "expired"},
		"no expiry":              {claims(map[string]any{"exp": nil}), "expiry"},
		"an expiry that is none": {claims(map[string]any{"exp": "never"}), "malformed"},
		"not valid yet":          {claims(map[string]any{"nbf": noon.Add(31 * time.Second).Unix()}), "not valid yet"},
		"another issuer":         {claims(map[string]any{"iss": "https://evil.example.org/"}), "issuer"},
		"no issuer":              {claims(map[string]any{"iss": nil}), "issuer"},
		"another audience":       {claims(map[string]any{"aud": []string{"bank"}}), "audience"},
		"no audience":            {claims(map[string]any{"aud": nil}), "audience"},
		"no subject":             {claims(map[string]any{"sub": nil}), "subject"},
		"a long subject":         {claims(map[string]any{"sub": strings.Repeat("s", 101)}), "subject"},
		"a subject of bytes":     {claims(map[string]any{"sub": "a\x00"}), "subject"},
		"the server's subject":   {claims(map[string]any{"sub": "policy:checkout"}), "kept for the server"},
		"roles of numbers":       {claims(map[string]any{"roles": []any{"staff", 1}}), "roles"},
		"roles of an object":     {claims(map[string]any{"roles": map[string]any{"staff": true}}), "roles"},
		"too many roles":         {claims(map[string]any{"roles": strings.Repeat("r ", 51)}), "roles"},
	} {
		who, err := v.Verify(t.Context(), c.token)
		require.Error(t, err, name)
		var refused *auth.RefusedError
		require.ErrorAs(t, err, &refused, name)
		require.Contains(t, err.Error(), c.reason, name)
		require.True(t, who.Anonymous(), name)
		if len(parts) > 2 {
			require.NotContains(t, err.Error(), "eyJ", name) // nothing of a token
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestLeeway(t *testing.T) {
	t.Parallel()
	p := edPair(t, "d")
	v, clock := verifier(t, auth.Config{KeysURL: publish(t, keySet(t, p.jwk(t, nil))).url, Leeway: 5 * time.Second})
	token := p.sign(t, good(map[string]any{"exp": noon.Unix(), "nbf": noon.Add(4 * time.Second).Unix()}))
	_, err := v.Verify(t.Context(), token)
	require.NoError(t, err)
	clock.move(4 * time.Second)
	_, err = v.Verify(t.Context(), token)
	require.NoError(t, err)
	clock.move(2 * time.Second)
	_, err = v.Verify(t.Context(), token)
	require.ErrorContains(t, err, "expired")
}

// Clients send the same token with each request, and a signature costs more than a small query. TestLeeway and
// TestKeysAreReadAgainInTheBackground show that what is remembered ends with the token and with the keys.
func TestASignatureIsVerifiedOnce(t *testing.T) {
	p := ecPair(t, "e")
	v, _ := verifier(t, auth.Config{KeysURL: publish(t, keySet(t, p.jwk(t, nil))).url})
	token, other := p.sign(t, good(nil)), p.sign(t, good(map[string]any{"sub": "user-bea"}))
	verify := func(token, subject string) {
		who, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, subject, who.Subject)
	}
	verify(token, "user-ada")
	verify(other, "user-bea")
	require.Less(t, testing.AllocsPerRun(20, func() {
		_, _ = v.Verify(t.Context(), token)
		_, _ = v.Verify(t.Context(), other)
	}), 5.0, "parsing alone takes more than fifty")
	verify(token, "user-ada")
	verify(other, "user-bea")
}

func TestRolesComeFromTheClaimThatIsNamed(t *testing.T) {
	t.Parallel()
	p := edPair(t, "d")
	url := publish(t, keySet(t, p.jwk(t, nil))).url
	for name, c := range map[string]struct {
		claims map[string]any
		want   []string
	}{
		"realm_access.roles":         {map[string]any{"realm_access": map[string]any{"roles": []string{"a", "b"}}}, []string{"a", "b"}},
		"https://example.org/groups": {map[string]any{"https://example.org/groups": []string{"a"}}, []string{"a"}},
		"scope":                      {map[string]any{"scope": "a  b"}, []string{"a", "b"}},
		"absent":                     {nil, nil},
		"sub.roles":                  {nil, nil},
	} {
		v, _ := verifier(t, auth.Config{KeysURL: url, RolesClaim: name})
		who, err := v.Verify(t.Context(), p.sign(t, good(c.claims)))
		require.NoError(t, err, name)
		require.Equal(t, c.want, who.Roles, name)
	}
}

func TestKeysRotate(t *testing.T) {
	t.Parallel()
	old, next := ecPair(t, "old"), ecPair(t, "next")
	published := publish(t, keySet(t, old.jwk(t, nil)))
	v, clock := verifier(t, auth.Config{KeysURL: published.url, UnknownPause: time.Minute})
	accepted := func(p pair) bool {
		_, err := v.Verify(t.Context(), p.sign(t, good(map[string]any{"exp": noon.Add(24 * time.Hour).Unix()})))
		return err == nil
	}
	require.True(t, accepted(old))
	require.False(t, accepted(next))
	require.Equal(t, 2, published.count(), "at the start, and for the unknown key")

	// Unknown keys lead to no more reads until the pause is over, however many tokens name them, and nobody waits.
	published.publish(http.StatusOK, keySet(t, old.jwk(t, nil), next.jwk(t, nil)))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { accepted(next) })
	}
	all.Wait()
	require.Equal(t, 2, published.count())
	clock.move(time.Minute)
	for range 20 {
		all.Go(func() { accepted(next) })
	}
	all.Wait()
	require.Equal(t, 3, published.count())
	require.True(t, accepted(next))
	require.True(t, accepted(old))

	// What cannot be read takes no key away; what was withdrawn is gone with the next read.
	clock.move(time.Minute)
	published.publish(http.StatusServiceUnavailable, nil)
	require.False(t, accepted(ecPair(t, "unknown")))
	require.True(t, accepted(old))
	clock.move(time.Minute)
	published.publish(http.StatusOK, keySet(t, next.jwk(t, nil)))
	require.False(t, accepted(ecPair(t, "unknown")))
	require.False(t, accepted(old))
	require.True(t, accepted(next))
}

func TestKeysAreReadAgainInTheBackground(t *testing.T) {
	t.Parallel()
	old, next := edPair(t, "old"), edPair(t, "next")
	path := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(path, keySet(t, old.jwk(t, nil)), 0o600))
	v, _ := verifier(t, auth.Config{KeysFile: path, Refresh: time.Millisecond})
	_, err := v.Verify(t.Context(), old.sign(t, good(nil)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = v.Run(ctx) })
	require.NoError(t, os.WriteFile(path, keySet(t, next.jwk(t, nil)), 0o600))
	token := old.sign(t, good(nil))
	require.Eventually(t, func() bool {
		_, err := v.Verify(t.Context(), token)
		return err != nil
	}, 30*time.Second, time.Millisecond, "a withdrawn key is still accepted")
	cancel()
	running.Wait()
}

func TestAnIssuerThatIsDownAtTheStartIsAskedAgain(t *testing.T) {
	t.Parallel()
	p := edPair(t, "d")
	published := publish(t, nil)
	published.publish(http.StatusBadGateway, nil)
	v, _ := verifier(t, auth.Config{KeysURL: published.url})
	published.publish(http.StatusOK, keySet(t, p.jwk(t, nil)))
	_, err := v.Verify(t.Context(), p.sign(t, good(nil)))
	require.NoError(t, err)
}

func TestKeysThatDoNotServeAreLeftOut(t *testing.T) {
	t.Parallel()
	weak := pair{"weak", jwt.SigningMethodRS256, must(rsa.GenerateKey(rand.Reader, 1024))}
	curve := pair{"curve", jwt.SigningMethodES384, must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))}
	forEncryption, forAnother, only := rsaPair(t, "enc"), rsaPair(t, "other"), edPair(t, "only")
	set := keySet(t,
		weak.jwk(t, nil), curve.jwk(t, nil),
		forEncryption.jwk(t, func(k *jwkset.JWKMarshal) { k.USE = jwkset.UseEnc }),
		forAnother.jwk(t, func(k *jwkset.JWKMarshal) { k.ALG = jwkset.AlgPS256 }),
		json.RawMessage(`{"kty":"oct","kid":"secret","k":"c2VjcmV0"}`), json.RawMessage(`{"kty":"new"}`), json.RawMessage(`7`),
		only.jwk(t, nil),
	)
	v, _ := verifier(t, auth.Config{KeysURL: publish(t, set).url})
	for _, p := range []pair{weak, forEncryption, forAnother} {
		_, err := v.Verify(t.Context(), p.sign(t, good(nil)))
		require.ErrorContains(t, err, "known key", p.id)
	}
	// The only key there is serves for tokens that name none.
	_, err := v.Verify(t.Context(), only.signWith(t, only.method, only.private, good(nil), map[string]any{"kid": nil}))
	require.NoError(t, err)
}

func TestConfigurationsThatCannotBeSafeAreRefused(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]auth.Config{
		"no issuer":     {Audience: audience, KeysURL: "http://localhost/"},
		"no audience":   {Issuer: issuer, KeysURL: "http://localhost/"},
		"no keys":       {Issuer: issuer, Audience: audience},
		"two sets":      {Issuer: issuer, Audience: audience, KeysURL: "http://localhost/", KeysFile: "keys.json"},
		"a file absent": {Issuer: issuer, Audience: audience, KeysFile: filepath.Join(t.TempDir(), "none")},
	} {
		_, err := auth.NewVerifier(t.Context(), cfg)
		require.Error(t, err, name)
	}
}
