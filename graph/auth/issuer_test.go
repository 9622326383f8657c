package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/headrace/headrace/graph/auth"
)

const (
	issuer   = "https://id.example.org/"
	audience = "shop"
)

// noon is when these tests happen.
var noon = time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)

// pair is a key of the issuer.
type pair struct {
	id      string
	method  jwt.SigningMethod
	private crypto.Signer
}

func rsaPair(t *testing.T, id string) pair {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return pair{id, jwt.SigningMethodRS256, key}
}

func ecPair(t *testing.T, id string) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return pair{id, jwt.SigningMethodES256, key}
}

func edPair(t *testing.T, id string) pair {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return pair{id, jwt.SigningMethodEdDSA, key}
}

// good are claims that are accepted at noon; changes replace some, and nil removes.
func good(changes map[string]any) jwt.MapClaims {
	claims := jwt.MapClaims{
		"iss": issuer, "aud": audience, "sub": "user-ada", "exp": noon.Add(time.Minute).Unix(), "iat": noon.Unix(),
		"roles": []string{"customer", "staff"},
	}
	for name, value := range changes {
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
	}
	return claims
}

func (p pair) sign(t *testing.T, claims jwt.MapClaims) string {
	t.Helper()
	return p.signWith(t, p.method, p.private, claims, nil)
}

func (p pair) signWith(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims, header map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	token.Header["kid"] = p.id
	for name, value := range header {
		token.Header[name] = value
		if value == nil {
			delete(token.Header, name)
		}
	}
	text, err := token.SignedString(key)
	require.NoError(t, err)
	return text
}

// jwk is the key as the issuer publishes it.
func (p pair) jwk(t *testing.T, change func(*jwkset.JWKMarshal)) json.RawMessage {
	t.Helper()
	key, err := jwkset.NewJWKFromKey(p.private.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: p.id, USE: jwkset.UseSig}})
	require.NoError(t, err)
	about := key.Marshal()
	if change != nil {
		change(&about)
	}
	text, err := json.Marshal(about)
	require.NoError(t, err)
	return text
}

func keySet(t *testing.T, keys ...json.RawMessage) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{"keys": keys})
	require.NoError(t, err)
	return text
}

// publisher serves a key set that changes, and counts who asks.
type publisher struct {
	mu     sync.Mutex
	set    []byte
	status int
	asked  int
	url    string
}

func publish(t *testing.T, set []byte) *publisher {
	t.Helper()
	p := &publisher{set: set, status: http.StatusOK}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked++
		w.WriteHeader(p.status)
		_, _ = w.Write(p.set)
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func (p *publisher) publish(status int, set []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.set = status, set
}

func (p *publisher) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// clock is a time that stands until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func verifier(t *testing.T, cfg auth.Config) (*auth.Verifier, *clock) {
	t.Helper()
	clock := &clock{now: noon}
	cfg.Issuer, cfg.Audience, cfg.Now = issuer, audience, clock.Now
	v, err := auth.NewVerifier(t.Context(), cfg)
	require.NoError(t, err)
	return v, clock
}
