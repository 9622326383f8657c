package graph_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

// get queries by GET. Known is the ETag that the client has, if any.
func (b *bundle) get(document string, variables map[string]any, known string, headers ...string) answer {
	b.t.Helper()
	parameters := url.Values{"query": {document}}
	if variables != nil {
		text, err := json.Marshal(variables)
		must(b.t, err)
		parameters.Set("variables", string(text))
	}
	request, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.url+"/graphql?"+parameters.Encode(), http.NoBody)
	must(b.t, err)
	if known != "" {
		request.Header.Set("If-None-Match", known)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	return b.do(request)
}

// asSaid is an identity of the headers: ada with the role of staff unless they say otherwise.
func asSaid(ctx context.Context, r *http.Request, _ map[string]any) (context.Context, time.Time, error) {
	who := identity.Identity{Subject: "ada", Roles: []string{identity.Staff}}
	if actor := r.Header.Get("X-Actor"); actor != "" {
		who.Subject = actor
	}
	if roles := r.Header.Get("X-Roles"); roles != "" {
		who.Roles = strings.Split(roles, ",")
	}
	return identity.NewContext(ctx, who), time.Time{}, nil
}

// An answer that is the same needs not be sent again, and one that is another always is.
func TestAnAnswerIsKnownByThePositionsItIsReadFrom(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{Login: asSaid})
	id := b.openCart()
	users := 0
	for document, watches := range map[string]struct{ cart, user bool }{
		`query($c: ID!) { cart(id: $c) { version } }`:                                                              {cart: true},
		`query($c: ID!) { node(id: $c) { id } }`:                                                                   {cart: true},
		`query($c: ID!) { ...f } fragment f on Query { cart(id: $c) { version } carts { totalCount } }`:            {cart: true},
		`query($c: ID!, $no: Boolean = false) { cart(id: $c) { version } users @include(if: $no) { totalCount } }`: {cart: true},
		`query($c: ID!) { cart(id: $c) { version } users { totalCount } }`:                                         {cart: true, user: true},
		`query($c: ID!) { cart(id: $c, asOf: {version: 1}) { version } }`:                                          {cart: true, user: true},
		`query($c: ID!) { history(id: $c) { nodes { version state { id } } } }`:                                    {cart: true, user: true},
		`query($c: ID!) { cart(id: $c) { version } events(first: 1) { head } }`:                                    {cart: true, user: true},
		`query($c: ID!) { nodes(ids: [$c, "nothing-1", "event-1"]) { id __typename } __typename }`:                 {cart: true, user: true},
		`query($c: ID!) { nodes(ids: [$c, "user-none"]) { id } }`:                                                  {cart: true, user: true},
	} {
		b.settle()
		variables := in{"c": id}
		first := b.get(document, variables, "")
		etag := first.header.Get("ETag")
		if etag == "" || first.code() != nil {
			t.Fatalf("%s: no ETag: %s", document, first.raw)
		}
		equal(t, "cache", first.header.Get("Cache-Control"), "private, no-cache")
		if vary := strings.Join(first.header.Values("Vary"), ", "); !strings.Contains(vary, "Authorization") || !strings.Contains(vary, "Accept") {
			t.Errorf("%s: varies by %s", document, vary)
		}
		again := b.get(document, variables, etag)
		equal(t, document, again.status, http.StatusNotModified)
		equal(t, "nothing is sent again", again.raw, "")
		for name, other := range map[string]answer{
			"another user":  b.get(document, variables, etag, "X-Actor", "eve"),
			"another role":  b.get(document, variables, etag, "X-Roles", "staff,auditor"),
			"more of it":    b.get(document+" # x", variables, etag),
			"another value": b.get(strings.ReplaceAll(document, "$c", "$d"), in{"d": id}, etag),
		} {
			equal(t, document+": "+name, other.status, http.StatusOK)
		}
		users++
		b.post(fmt.Sprintf(`mutation { registerUser(input: {email: "u%d@example.org", name: "U"}) { receipt { version } } }`, users), nil)
		b.settle()
		want := http.StatusNotModified
		if watches.user {
			want = http.StatusOK
		}
		equal(t, document+": after a user", b.get(document, variables, etag).status, want)
		etag = b.get(document, variables, "").header.Get("ETag")
		b.post(addItem, in{"cart": id, "price": 1})
		b.settle()
		changed := b.get(document, variables, etag)
		equal(t, document+": after the cart", changed.status, http.StatusOK)
		if changed.header.Get("ETag") == etag {
			t.Errorf("%s: the same ETag for another answer", document)
		}
	}
}

// Where it is not known that nothing changed, there is no ETag, and everything is sent.
func TestAnswersWithoutAnETag(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{Login: asSaid})
	id, old, latest := b.behind()
	ask := func(arguments string, headers ...string) answer {
		return b.get(fmt.Sprintf(`{ cart(id: %q %s) { version } }`, id, arguments), nil, "", headers...)
	}
	equal(t, "what includes what was asked for", ask("", "Headrace-At-Least", old).header.Get("ETag") != "", true)
	for name, a := range map[string]answer{
		"behind":            ask(`, within: "20ms"`, "Headrace-At-Least", latest),
		"stale":             ask(`, within: "20ms", onTimeout: STALE`, "Headrace-At-Least", latest),
		"of another log":    ask("", "Headrace-At-Least", eventstore.Token{LogID: uuid.New(), Position: 1}.String()),
		"how fresh it is":   ask("", "Headrace-Freshness", "true"),
		"an error":          ask(`, asOf: {position: 99}`),
		"nothing but names": b.get(`{ __type(name: "Cart") { name } }`, nil, ""),
	} {
		if etag := a.header.Get("ETag"); etag != "" {
			t.Errorf("%s: %s for %s", name, etag, a.raw)
		}
	}
	equal(t, "behind", ask(`, within: "20ms"`, "Headrace-At-Least", latest).code(), any("PROJECTION_BEHIND"))
	equal(t, "stale", ask(`, within: "20ms", onTimeout: STALE`, "Headrace-At-Least", latest).at(t, "cart", "version"), any(1.0))
	equal(t, "by POST", b.post(fmt.Sprintf(`{ cart(id: %q) { version } }`, id), nil).header.Get("ETag"), "")
}
