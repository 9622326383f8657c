package graph_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headrace/headrace/graph"
)

const (
	trustedTypename = `query Typename { __typename }`
	trustedCart     = `query Cart($id: ID!) { cart(id: $id) { id } }`
	trustedEvents   = `subscription Events { events(after: "0") { position } }`
)

func sha(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	must(t, err)
	return string(text)
}

// manifest writes a file of trusted documents.
func manifest(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "documents.json")
	must(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// apollo is a request as Apollo's link for persisted queries sends it.
func apollo(hash, document string) in {
	request := in{"extensions": in{"persistedQuery": in{"version": 1, "sha256Hash": hash}}}
	if document != "" {
		request["query"] = document
	}
	return request
}

func byID(id string) in { return in{"documentId": id} }

func TestDocumentsMayBeNamedByTheirHash(t *testing.T) {
	t.Parallel()
	ask := bare(t, graph.Config{})
	const document = `{ __typename }`
	post := func(request in, headers ...string) answer {
		t.Helper()
		return ask(http.MethodPost, "/graphql", jsonOf(t, request), headers...)
	}
	get := func(request in) answer {
		t.Helper()
		values := url.Values{}
		for name, v := range request {
			text, isText := v.(string)
			if !isText {
				text = jsonOf(t, v)
			}
			values.Set(name, text)
		}
		return ask(http.MethodGet, "/graphql?"+values.Encode(), "")
	}
	for method, send := range map[string]func(in) answer{"POST": func(r in) answer { return post(r) }, "GET": get} {
		document := document + "#" + method
		hash := sha(document)
		miss := send(apollo(hash, ""))
		equal(t, method+": code of a miss", miss.code(), any("PERSISTED_QUERY_NOT_FOUND"))
		equal(t, method+": message of a miss", miss.Errors[0].Message, "PersistedQueryNotFound")
		equal(t, method+": status of a miss", miss.status, http.StatusOK)
		equal(t, method+": with its text", send(apollo(hash, document)).at(t, "__typename"), any("Query"))
		equal(t, method+": without its text", send(apollo(hash, "")).at(t, "__typename"), any("Query"))
		equal(t, method+": by documentId", send(byID("sha256:"+hash)).at(t, "__typename"), any("Query"))
	}
	equal(t, "status of a miss for the new media type",
		post(apollo(sha("x"), ""), "Accept", "application/graphql-response+json").status, http.StatusBadRequest)
	for name, request := range map[string]in{
		"another hash":            apollo(sha("x"), document),
		"another hash, by id":     {"query": document, "documentId": "sha256:" + sha("x")},
		"no hash":                 apollo("", document),
		"half a hash":             apollo(sha(document)[:32], document),
		"a hash in capitals":      apollo(strings.ToUpper(sha(document)), document),
		"another version":         {"extensions": in{"persistedQuery": in{"version": 2, "sha256Hash": sha(document)}}},
		"no version":              {"extensions": in{"persistedQuery": in{"sha256Hash": sha(document)}}},
		"no object":               {"extensions": in{"persistedQuery": "x"}},
		"an id that is no text":   {"documentId": 7},
		"an id that is too long":  byID(strings.Repeat("x", 101)),
		"an id that is empty":     byID(""),
		"neither name nor text":   {"extensions": in{"other": 1}},
		"no name, and empty text": {"query": "", "extensions": in{"persistedQuery": nil}},
	} {
		equal(t, name, post(request).code(), any("BAD_REQUEST"))
	}
	equal(t, "an id that is not known", post(byID("nobody")).code(), any("PERSISTED_QUERY_NOT_FOUND"))
	dear := "{" + strings.Repeat("__typename ", 1_000) + "}"
	equal(t, "what is refused", post(apollo(sha(dear), dear)).code(), any("DOCUMENT_LIMIT_EXCEEDED"))
	equal(t, "is not kept", post(apollo(sha(dear), "")).code(), any("PERSISTED_QUERY_NOT_FOUND"))
	mutation := `mutation { abandonCart(input: {cartId: "x"}) { userErrors { code } } }`
	equal(t, "mutation by GET", get(apollo(sha(mutation), mutation)).status, http.StatusMethodNotAllowed)
}

func TestFormsOfManifests(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		content string
		ids     []string
	}{
		"prefixed hash": {jsonOf(t, in{"sha256:" + sha(trustedTypename): trustedTypename}), []string{"sha256:" + sha(trustedTypename), sha(trustedTypename)}},
		"plain hash":    {jsonOf(t, in{sha(trustedTypename): trustedTypename}), []string{"sha256:" + sha(trustedTypename), sha(trustedTypename)}},
		"own id":        {jsonOf(t, in{"shop/typename@1": trustedTypename}), []string{"shop/typename@1", "sha256:" + sha(trustedTypename)}},
		"Apollo's": {jsonOf(t, in{"format": "apollo-persisted-query-manifest", "version": 1, "operations": []in{
			{"id": "abc", "name": "Typename", "type": "query", "body": trustedTypename},
		}}), []string{"abc", sha(trustedTypename)}},
	} {
		ask := bare(t, graph.Config{TrustedDocuments: manifest(t, c.content)})
		for _, id := range c.ids {
			a := ask(http.MethodPost, "/graphql", jsonOf(t, byID(id)))
			if a.code() != nil || a.Data["__typename"] != "Query" {
				t.Errorf("%s: %s is answered by %s", name, id, a.raw)
			}
		}
		equal(t, name+": by Apollo's extension", ask(http.MethodPost, "/graphql", jsonOf(t, apollo(sha(trustedTypename), ""))).code(), nil)
		equal(t, name+": others too", ask(http.MethodPost, "/graphql", query(t, "{ __typename }")).code(), nil)
		other := in{"query": "{ __typename }", "documentId": c.ids[0]}
		equal(t, name+": another text", ask(http.MethodPost, "/graphql", jsonOf(t, other)).code(), any("BAD_REQUEST"))
	}
}

func TestWrongManifestsAreToldAtStart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ content, says string }{
		"no JSON":         {`{`, "neither an object"},
		"a list":          {`[]`, "neither an object"},
		"another value":   {`{"a": 1}`, "neither an object"},
		"another format":  {`{"format": "x", "version": 1, "operations": []}`, `"x"`},
		"another version": {`{"format": "apollo-persisted-query-manifest", "version": 2, "operations": []}`, "version 2"},
		"another hash":    {jsonOf(t, in{"sha256:" + sha("x"): trustedTypename}), sha("x")},
		"no id":           {jsonOf(t, in{"": trustedTypename}), "an id has"},
		"no document":     {jsonOf(t, in{"empty-one": ""}), "empty-one"},
		"wrong syntax":    {jsonOf(t, in{"broken-one": "{ a"}), "broken-one"},
		"unknown field":   {jsonOf(t, in{"good-one": trustedCart, "stale-one": "{ cartz { id } }"}), `"stale-one"`},
		"no operation":    {jsonOf(t, in{"only-fragments": "fragment F on Cart { id }"}), "only-fragments"},
	} {
		path := manifest(t, c.content)
		_, err := graph.NewHandler(&graph.Resolver{}, graph.Config{TrustedDocuments: path})
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := graph.NewHandler(&graph.Resolver{}, graph.Config{TrustedDocuments: "none.json"}); err == nil {
		t.Error("a file that is not there is taken")
	}
	if _, err := graph.NewHandler(&graph.Resolver{}, graph.Config{TrustedOnly: true}); err == nil {
		t.Error("only trusted documents, of which there are none, is taken")
	}
}

// Whichever way a document comes: only those of the manifest are executed.
func TestOnlyTrustedDocumentsAreExecuted(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{TrustedOnly: true, Development: true, TrustedDocuments: manifest(t, jsonOf(t, in{
		"cart": trustedCart, "events": trustedEvents, sha(openCart): openCart,
	}))})
	post := func(request in) answer {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/graphql", strings.NewReader(jsonOf(t, request)))
		must(t, err)
		r.Header.Set("Content-Type", "application/json")
		return b.do(r)
	}
	b.openCart() // by its whole text
	equal(t, "by id", post(in{"variables": in{"id": "cart-1"}, "documentId": "cart"}).code(), nil)
	const foreign = `{ __typename }`
	for name, request := range map[string]in{
		"by its text":              {"query": foreign},
		"introspection":            {"query": `{ __schema { queryType { name } } }`},
		"the same, written else":   {"query": trustedCart + " ", "variables": in{"id": "cart-1"}},
		"to be kept":               apollo(sha(foreign), foreign),
		"by a hash that it sent":   apollo(sha(foreign), ""),
		"by an id that is unknown": byID("nobody"),
		"not even parsed":          {"query": "{{{"},
	} {
		a := post(request)
		equal(t, name, a.code(), any("UNTRUSTED_DOCUMENT"))
		equal(t, name, a.Data == nil, true)
	}

	for _, payload := range []in{{"query": `subscription { events(after: "0") { id } }`}, byID("nobody")} {
		s := b.connect()
		s.send(in{"type": "subscribe", "id": "1", "payload": payload})
		if refused := s.text(); !strings.Contains(refused, "UNTRUSTED_DOCUMENT") {
			t.Errorf("over a WebSocket: %s", refused)
		}
	}
	s := b.connect()
	s.send(in{"type": "subscribe", "id": "1", "payload": byID("events")})
	equal(t, "trusted over a WebSocket", s.object("1", "events")["position"], any("1"))

	equal(t, "over events", b.follow(`subscription { events(after: "0") { id } }`).lineAfterComments(), "event: next")
	refused := b.follow(foreign)
	equal(t, "over events", refused.lineAfterComments(), "event: next")
	if data := refused.lineAfterComments(); !strings.Contains(data, "UNTRUSTED_DOCUMENT") {
		t.Errorf("over events: %s", data)
	}
	trusted := b.follow(trustedEvents)
	trusted.expect("id: 1", "event: next")
	if data := trusted.lineAfterComments(); !strings.Contains(data, `"position":"1"`) {
		t.Errorf("trusted over events: %s", data)
	}
}

func TestTrustedDocumentsHaveLimitsToo(t *testing.T) {
	t.Parallel()
	const dear = `{ carts(first: 100) { nodes { items { sku name quantity } } edges { node { items { sku name quantity } } } } }`
	ask := bare(t, graph.Config{MaxCost: 1_000, TrustedDocuments: manifest(t, jsonOf(t, in{"dear": dear}))})
	equal(t, "cost", ask(http.MethodPost, "/graphql", jsonOf(t, byID("dear"))).code(), any("COMPLEXITY_LIMIT_EXCEEDED"))
}

func TestTrustedDocumentsAreReadAnew(t *testing.T) {
	t.Parallel()
	path := manifest(t, jsonOf(t, in{"one": trustedTypename}))
	b := setup(t, graph.Config{TrustedOnly: true, TrustedDocuments: path})
	code := func(document string) any { return b.post(document, in{"id": "cart-1"}).code() }
	equal(t, "before", code(trustedTypename), nil)
	equal(t, "new before", code(trustedCart), any("UNTRUSTED_DOCUMENT"))
	must(t, os.WriteFile(path, []byte(jsonOf(t, in{"two": "{ wrong }"})), 0o600))
	if err := b.handler.ReloadDocuments(); err == nil || !strings.Contains(err.Error(), "two") {
		t.Fatalf("a wrong manifest is taken: %v", err)
	}
	equal(t, "after a wrong one", code(trustedTypename), nil)
	must(t, os.WriteFile(path, []byte(jsonOf(t, in{"two": trustedCart})), 0o600))
	must(t, b.handler.ReloadDocuments())
	equal(t, "old after", code(trustedTypename), any("UNTRUSTED_DOCUMENT"))
	equal(t, "new after", code(trustedCart), nil)
}
