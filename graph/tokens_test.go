package graph_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/graph/auth"
	"github.com/headrace/headrace/graph/throttle"
	"github.com/headrace/headrace/internal/identity"
)

// signer is an issuer of tokens with one key.
type signer struct {
	t   *testing.T
	key ed25519.PrivateKey
}

// verified gives a server that accepts the signer's tokens, with clocks that agree.
func verified(t *testing.T) (signer, *auth.Verifier) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	path := filepath.Join(t.TempDir(), "keys.json")
	set := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
	must(t, os.WriteFile(path, []byte(set), 0o600))
	v, err := auth.NewVerifier(t.Context(), auth.Config{
		KeysFile: path, Issuer: "https://id.example.org/", Audience: "shop", Leeway: time.Nanosecond,
	})
	must(t, err)
	return signer{t, private}, v
}

// token is for a subject and a time from now on.
func (s signer) token(subject string, lasts time.Duration, roles ...string) string {
	s.t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": "https://id.example.org/", "aud": "shop", "sub": subject, "roles": roles,
		"exp": float64(time.Now().Add(lasts).UnixMilli()) / 1000,
	})
	token.Header["kid"] = "k"
	text, err := token.SignedString(s.key)
	must(s.t, err)
	return "Bearer " + text
}

const openMine = `mutation($o: ID!) { openCart(input: {ownerId: $o, currency: "EUR"}) { receipt { position stream } cart(within: "30s") { ownerId } } }`

func TestTokensOverHTTP(t *testing.T) {
	t.Parallel()
	issuer, verifier := verified(t)
	b := setup(t, graph.Config{Login: verifier.Login})
	ada, clerk := issuer.token("ada", time.Hour, "customer"), issuer.token("clerk", time.Hour, "staff", "desk")

	own := b.post(openMine, in{"o": "ada"}, "Authorization", ada, "X-Actor", "clerk", "X-Request-Id", "r-1")
	equal(t, "own cart", own.at(t, "openCart", "cart", "ownerId"), any("ada"))
	other := b.post(openMine, in{"o": "eve"}, "Authorization", ada, "X-Actor", "eve")
	equal(t, "another's cart", other.code(), any("FORBIDDEN"))
	forEve := b.post(openMine, in{"o": "eve"}, "Authorization", clerk)
	equal(t, "by staff", forEve.at(t, "openCart", "cart", "ownerId"), any("eve"))
	nobody := b.post(openMine, in{"o": "ada"}, "X-Actor", "ada")
	equal(t, "as nobody", nobody.code(), any("UNAUTHENTICATED"))
	if nobody.status == http.StatusUnauthorized { // only a token that is not accepted is
		t.Errorf("nobody is answered with status %d", nobody.status)
	}

	// Events and activities say who it was, with which roles, and by which request.
	log := b.post(`{ events { nodes { metadata { actor roles requestId correlationId } } } }`, nil, "Authorization", clerk)
	equal(t, "first event", asText(t, log.at(t, "events", "nodes", 0, "metadata").(map[string]any)),
		`{"actor":"ada","correlationId":"r-1","requestId":"r-1","roles":["customer"]}`)
	equal(t, "second event's roles", fmt.Sprint(log.at(t, "events", "nodes", 1, "metadata", "roles")), "[staff desk]")
	b.settleAs(clerk)
	done := b.post(`query($s: ID) { activity(stream: $s) { nodes { actor roles requestId } } }`, in{"s": own.at(t, "openCart", "receipt", "stream")}, "Authorization", ada)
	equal(t, "activity", asText(t, done.at(t, "activity", "nodes", 0).(map[string]any)), `{"actor":"ada","requestId":"r-1","roles":["customer"]}`)

	for name, token := range map[string]string{
		"expired": issuer.token("ada", -time.Second), "of another key": signer{t, ed25519.NewKeyFromSeed(make([]byte, 32))}.token("ada", time.Hour),
		"of the server's own": issuer.token("policy:checkout", time.Hour), "none": "Bearer", "malformed": "Bearer x.y.z",
	} {
		for _, accept := range []string{"application/json", "application/graphql-response+json", "text/event-stream"} {
			a := b.post(`{ __typename }`, nil, "Authorization", token, "Accept", accept)
			equal(t, name+" over "+accept, a.status, http.StatusUnauthorized)
			equal(t, name, a.code(), any("UNAUTHENTICATED"))
			if !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer") || strings.Contains(a.raw, "eyJ") {
				t.Errorf("%s is answered with %v %s", name, a.header, a.raw)
			}
		}
	}
	if logged := b.log.String(); strings.Contains(logged, "eyJ") {
		t.Errorf("a token is logged: %s", logged)
	}
}

// settleAs is settle for who may read.
func (b *bundle) settleAs(token string) {
	b.t.Helper()
	head, err := b.store.Head(b.t.Context())
	must(b.t, err)
	a := b.post(`query($t: Token) { activity(atLeast: $t, within: "30s") { edges { cursor } } }`, in{"t": head.String()}, "Authorization", token)
	equal(b.t, "error", a.code(), nil)
}

func TestTokensOverWebSockets(t *testing.T) {
	t.Parallel()
	issuer, verifier := verified(t)
	b := setup(t, graph.Config{Login: verifier.Login})
	for name, c := range map[string]struct {
		header  http.Header
		payload in
		want    string // the subject whose cart may be opened
	}{
		"in the payload":             {nil, in{"authorization": issuer.token("ada", time.Hour)}, "ada"},
		"with a capital":             {nil, in{"Authorization": issuer.token("ada", time.Hour)}, "ada"},
		"in the upgrade's header":    {http.Header{"Authorization": {issuer.token("bob", time.Hour)}}, nil, "bob"},
		"the payload goes first":     {http.Header{"Authorization": {issuer.token("bob", time.Hour)}}, in{"authorization": issuer.token("ada", time.Hour)}, "ada"},
		"nobody":                     {nil, nil, ""},
		"one that is not accepted":   {nil, in{"authorization": issuer.token("ada", -time.Second)}, "refused"},
		"no text":                    {nil, in{"authorization": 7}, "refused"},
		"not accepted in the header": {http.Header{"Authorization": {"Bearer x"}}, nil, "refused"},
	} {
		s := b.dialHeader(c.header)
		s.send(in{"type": "connection_init", "payload": c.payload})
		if c.want == "refused" {
			_, _, err := s.conn.Read(s.ctx)
			equal(t, name, websocket.CloseStatus(err), websocket.StatusCode(4403))
			continue
		}
		s.receive("connection_ack")
		s.subscribe("1", openMine, in{"o": "ada"})
		message := s.read()
		equal(t, name, code(message) == "", c.want == "ada")
		if c.want == "" {
			equal(t, name, code(message), "UNAUTHENTICATED")
		}
	}
}

func (b *bundle) dialHeader(header http.Header) *socket {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	b.t.Cleanup(cancel)
	conn, response, err := websocket.Dial(ctx, b.url+"/graphql", &websocket.DialOptions{Subprotocols: []string{"graphql-transport-ws"}, HTTPHeader: header})
	must(b.t, err)
	if response.Body != nil {
		b.t.Cleanup(func() { _ = response.Body.Close() })
	}
	b.t.Cleanup(func() { _ = conn.CloseNow() })
	return &socket{t: b.t, ctx: ctx, conn: conn}
}

func TestStreamsEndWithTheirToken(t *testing.T) {
	t.Parallel()
	issuer, verifier := verified(t)
	b := setup(t, graph.Config{Login: verifier.Login})
	clerk := issuer.token("clerk", time.Hour, identity.Staff)
	const document = `subscription { events(after: "0") { position } }`
	b.post(openMine, in{"o": "ada"}, "Authorization", clerk)

	// A token that lives too shortly for a busy machine ends the stream before its first event: then with a longer one.
	socket := func(lifetime time.Duration) (events int) {
		s := b.dial()
		s.send(in{"type": "connection_init", "payload": in{"authorization": issuer.token("clerk", lifetime, identity.Staff)}})
		if ack := s.read(); ack["type"] != "connection_ack" {
			return 0
		}
		s.subscribe("1", document, nil)
		for message := s.read(); message != nil; message = s.read() { // until the socket is closed, well before patience ends
			if message["type"] == "next" {
				events++
			}
		}
		must(t, s.ctx.Err())
		return events
	}
	lifetime := time.Second
	events := socket(lifetime)
	for events == 0 && lifetime < patience/4 {
		lifetime *= 2
		events = socket(lifetime)
	}
	equal(t, "events of a log of one", events, 1)

	body, err := json.Marshal(in{"query": document})
	must(t, err)
	stream := func(lifetime time.Duration) (said string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url+"/graphql", bytes.NewReader(body))
		must(t, err)
		request.Header = http.Header{
			"Content-Type": {"application/json"}, "Accept": {"text/event-stream"},
			"Authorization": {issuer.token("clerk", lifetime, identity.Staff)},
		}
		ended := b.do(request) // returns when the stream has ended
		must(t, ctx.Err())
		return ended.raw
	}
	said := stream(lifetime)
	for !strings.Contains(said, `"position":"1"`) {
		if lifetime *= 2; lifetime > patience/4 {
			t.Fatalf("the stream said %s", said)
		}
		said = stream(lifetime)
	}
}

func TestOperationsAreAdmittedOverEveryTransport(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	limited := throttle.New(throttle.Config{
		Identity: throttle.Rate{PerSecond: 0.25, Burst: 2}, Now: func() time.Time { return time.Unix(now.Load(), 0) },
	})
	issuer, verifier := verified(t)
	b := setup(t, graph.Config{Login: verifier.Login, Admit: limited.Admit})
	for _, accept := range []string{"application/json", "text/event-stream"} {
		token := issuer.token("over "+accept, time.Hour)
		ask := func() answer { return b.post(`{ __typename }`, nil, "Authorization", token, "Accept", accept) }
		for range 2 {
			equal(t, accept, ask().status, http.StatusOK)
		}
		refused := ask()
		equal(t, accept, refused.status, http.StatusTooManyRequests)
		equal(t, accept, refused.code(), any("RATE_LIMITED"))
		equal(t, accept, refused.header.Get("Retry-After"), "4")
		now.Add(4)
		equal(t, accept, ask().status, http.StatusOK)
	}
	s := b.dial()
	s.send(in{"type": "connection_init", "payload": in{"authorization": issuer.token("over a socket", time.Hour)}})
	s.receive("connection_ack")
	for i, want := range []string{"", "", "RATE_LIMITED"} {
		s.subscribe(fmt.Sprint(i), `{ __typename }`, nil)
		message := s.read()
		equal(t, fmt.Sprint(i), code(message), want)
		if want == "" {
			s.receive("complete")
		}
	}
	now.Add(4)
	s.subscribe("later", `{ __typename }`, nil)
	s.receive("next")
}
