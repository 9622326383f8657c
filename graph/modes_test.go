package graph_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/graph/auth"
	"github.com/headrace/headrace/graph/graphiql"
)

// bare is a handler with nothing behind it, which is enough for what is refused before it is executed.
func bare(t *testing.T, cfg graph.Config) func(method, target, body string, headers ...string) answer {
	t.Helper()
	cfg.Logger = slogTo(&logged{})
	if cfg.Login == nil {
		cfg.Login = auth.Off
	}
	handler, err := graph.NewHandler(&graph.Resolver{}, cfg)
	must(t, err)
	return func(method, target, body string, headers ...string) answer {
		t.Helper()
		request := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
		if method == http.MethodPost {
			request.Header.Set("Content-Type", "application/json")
		}
		for i := 0; i+1 < len(headers); i += 2 {
			request.Header.Set(headers[i], headers[i+1])
		}
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		a := answer{status: recorder.Code, header: recorder.Header(), raw: recorder.Body.String()}
		if strings.HasPrefix(a.raw, "{") {
			must(t, json.Unmarshal([]byte(a.raw), &a))
		}
		return a
	}
}

func query(t *testing.T, document string) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"query": document})
	must(t, err)
	return string(body)
}

func TestProductionTellsNothingOfTheSchema(t *testing.T) {
	t.Parallel()
	const schema, typo = `{ __schema { queryType { name } } }`, `{ evnt(position: 1) { id } }`
	production := bare(t, graph.Config{})
	for _, document := range []string{
		schema, `{ __type(name: "Cart") { name } }`, `{ ...F } fragment F on Query { s: __schema { types { name } } }`, `query { ... { __schema { types { name } } } }`,
	} {
		equal(t, document, production(http.MethodPost, "/graphql", query(t, document)).code(), any("INTROSPECTION_DISABLED"))
	}
	refused := production(http.MethodPost, "/graphql", query(t, typo))
	equal(t, "typo", refused.code(), any("GRAPHQL_VALIDATION_FAILED"))
	equal(t, "suggestion", strings.Contains(refused.raw, "Did you mean"), false)
	equal(t, "__typename", production(http.MethodPost, "/graphql", query(t, `{ __typename }`)).at(t, "__typename"), any("Query"))
	equal(t, "page", production(http.MethodGet, "/", "").status, http.StatusNotFound)
	equal(t, "asset", production(http.MethodGet, "/assets/main.js", "").status, http.StatusNotFound)

	development := bare(t, graph.Config{Development: true})
	equal(t, "query type", development(http.MethodPost, "/graphql", query(t, schema)).at(t, "__schema", "queryType", "name"), any("Query"))
	equal(t, "suggestion", strings.Contains(development(http.MethodPost, "/graphql", query(t, typo)).raw, "Did you mean"), true)
	equal(t, "page", development(http.MethodGet, "/", "").status, http.StatusOK)
}

// Each of the three that development turns on can be turned on and off by itself, in either mode.
func TestSwitchesOverrideTheMode(t *testing.T) {
	t.Parallel()
	const schema, typo = `{ __schema { queryType { name } } }`, `{ evnt(position: 1) { id } }`
	seen := func(cfg graph.Config) [4]bool {
		ask := bare(t, cfg)
		return [4]bool{
			ask(http.MethodGet, "/", "").status == http.StatusOK,
			ask(http.MethodPost, "/graphql", query(t, schema)).code() == nil,
			ask(http.MethodGet, "/schema.graphql", "").status == http.StatusOK,
			strings.Contains(ask(http.MethodPost, "/graphql", query(t, typo)).raw, "Did you mean"),
		}
	}
	for _, development := range []bool{false, true} {
		for _, c := range []struct {
			name string
			cfg  graph.Config
			want [4]bool
		}{
			{"by mode", graph.Config{}, [4]bool{development, development, development, development}},
			{"all on", graph.Config{GraphiQL: graph.On, Introspection: graph.On, Suggestions: graph.On}, [4]bool{true, true, true, true}},
			{"all off", graph.Config{GraphiQL: graph.Off, Introspection: graph.Off, Suggestions: graph.Off}, [4]bool{}},
			{"GraphiQL", graph.Config{GraphiQL: graph.On}, [4]bool{true, development, development, development}},
			{"no introspection", graph.Config{Introspection: graph.Off}, [4]bool{development, false, false, development}},
			{"introspection", graph.Config{Introspection: graph.On}, [4]bool{development, true, true, development}},
			{"suggestions", graph.Config{Suggestions: graph.On}, [4]bool{development, development, development, true}},
		} {
			c.cfg.Development = development
			if got := seen(c.cfg); got != c.want {
				t.Errorf("%s, development %v: GraphiQL, introspection, schema, suggestions are %v, want %v", c.name, development, got, c.want)
			}
		}
	}
	for text, want := range map[string]graph.Switch{"": graph.ByMode, "on": graph.On, "true": graph.On, "off": graph.Off, "false": graph.Off} {
		var s graph.Switch
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is read as %v, %v", text, s, err)
		}
	}
	if err := new(graph.Switch).UnmarshalText([]byte("perhaps")); err == nil {
		t.Error("perhaps is taken")
	}
}

func TestDepthIsBounded(t *testing.T) {
	t.Parallel()
	const deep = `{ carts { edges { node { items { unitPrice { amount } } } } } }` // 6
	for _, c := range []struct {
		limit    int
		document string
		code     any
	}{
		{5, deep, "DEPTH_LIMIT_EXCEEDED"},
		{5, `{ ...A } fragment A on Query { carts { ...B } } fragment B on CartConnection { edges { node { items { unitPrice { amount } } } } }`, "DEPTH_LIMIT_EXCEEDED"},
		{5, `{ carts { edges { ... { node { items { unitPrice { amount } } } } } } }`, "DEPTH_LIMIT_EXCEEDED"},
		{6, deep, "INTERNAL_SERVER_ERROR"}, // is executed, with nothing behind it
	} {
		ask := bare(t, graph.Config{MaxDepth: c.limit})
		equal(t, c.document, ask(http.MethodPost, "/graphql", query(t, c.document)).code(), c.code)
	}
	ask := bare(t, graph.Config{MaxCost: 10})
	for document, code := range map[string]any{
		`{ carts(first: 3) { nodes { id status } } }`:                 "INTERNAL_SERVER_ERROR", // 1 + 3 × 3 = 10
		`{ carts(first: 4) { nodes { id status } } }`:                 "COMPLEXITY_LIMIT_EXCEEDED",
		`{ carts(last: 4) { nodes { id status } } }`:                  "COMPLEXITY_LIMIT_EXCEEDED",
		`{ carts { nodes { id } } }`:                                  "COMPLEXITY_LIMIT_EXCEEDED", // 20 unless said
		`{ nodes(ids: ["a", "b", "c", "d"]) { id __typename } }`:      nil,
		`{ nodes(ids: ["a", "b", "c", "d", "e"]) { id __typename } }`: "COMPLEXITY_LIMIT_EXCEEDED",
	} {
		equal(t, document, ask(http.MethodPost, "/graphql", query(t, document)).code(), code)
	}
}

func TestRequestsThatAreNone(t *testing.T) {
	t.Parallel()
	ask := bare(t, graph.Config{})
	const good = `{"query": "{ __typename }"}`
	for _, c := range []struct {
		name, method, target, body string
		headers                    []string
		status                     int
	}{
		{"good", "POST", "/graphql", good, nil, 200},
		{"good, of another upgrade", "POST", "/graphql", good, []string{"Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c"}, 200},
		{"good, with a charset", "POST", "/graphql", good, []string{"Content-Type", "application/json; charset=UTF-8"}, 200},
		{"good by GET", "GET", "/graphql?query=%7B__typename%7D&variables=%7B%7D&extensions=%7B%7D", "", nil, 200},
		{"no JSON", "POST", "/graphql", `{"query": `, nil, 400},
		{"more than one", "POST", "/graphql", good + good, nil, 400},
		{"a batch", "POST", "/graphql", "[" + good + "]", nil, 400},
		{"no query", "POST", "/graphql", `{}`, nil, 400},
		{"variables of another kind", "POST", "/graphql", `{"query": "{ __typename }", "variables": 7}`, nil, 400},
		{"variables of another kind by GET", "GET", "/graphql?query=%7B__typename%7D&variables=7", "", nil, 400},
		{"extensions of another kind by GET", "GET", "/graphql?query=%7B__typename%7D&extensions=7", "", nil, 400},
		{"a form", "POST", "/graphql", "query=%7B__typename%7D", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		{"another charset", "POST", "/graphql", good, []string{"Content-Type", "application/json; charset=latin1"}, 415},
		{"another method", "PUT", "/graphql", good, nil, 405},
		{"a mutation by GET as events", "GET", "/graphql?query=mutation%7BabandonCart(input:%7BcartId:%22a%22%7D)%7Breceipt%7Bversion%7D%7D%7D", "", []string{"Accept", "text/event-stream"}, 405},
		{"invalid, old media type", "POST", "/graphql", `{"query": "{ a }"}`, nil, 200},
		{"invalid, new media type", "POST", "/graphql", `{"query": "{ a }"}`, []string{"Accept", "application/graphql-response+json"}, 400},
		{"unparsable", "POST", "/graphql", `{"query": "{"}`, []string{"Accept", "application/graphql-response+json"}, 400},
		{"unknown operation", "POST", "/graphql", `{"query": "query A { __typename }", "operationName": "B"}`, []string{"Accept", "application/graphql-response+json"}, 400},
	} {
		a := ask(c.method, c.target, c.body, c.headers...)
		equal(t, c.name, a.status, c.status)
		if c.status == http.StatusOK && strings.HasPrefix(c.name, "good") {
			equal(t, c.name, a.raw, `{"data":{"__typename":"Query"}}`)
			continue
		}
		if a.code() == nil || strings.Contains(a.raw, `"data"`) {
			t.Errorf("%s is answered by %s", c.name, a.raw)
		}
	}
	equal(t, "media type", ask("POST", "/graphql", good).header.Get("Content-Type"), "application/json; charset=utf-8")
	equal(t, "new media type", ask("POST", "/graphql", good, "Accept", "application/graphql-response+json").header.Get("Content-Type"),
		"application/graphql-response+json; charset=utf-8")
	long := ask("POST", "/graphql", good, "X-Request-Id", strings.Repeat("x", 101))
	equal(t, "made id", len(long.header.Get("X-Request-Id")), 36)
}

func TestOriginsAreTrustedByName(t *testing.T) {
	t.Parallel()
	if _, err := graph.NewHandler(&graph.Resolver{}, graph.Config{Origins: []string{"shop"}}); err == nil {
		t.Error("an origin that is none is taken")
	}
	ask := bare(t, graph.Config{Origins: []string{"https://shop.example"}})
	for origin, status := range map[string]int{"https://shop.example": 200, "http://shop.example": 403, "https://evil.example": 403, "null": 403} {
		equal(t, origin, ask("POST", "/graphql", `{"query": "{ __typename }"}`, "Origin", origin).status, status)
	}
}

// fetch is what stands before an address that a browser would fetch by itself.
var fetch = regexp.MustCompile("(?i)((src|href)\\s*=\\s*[\"'`]?|url\\(\\s*[\"'`]?|import\\s*\\(?\\s*[\"'`]|importScripts\\([\"'`]|Worker\\([\"'`])(https?:)?$")

// delivery is a host that serves other people's files.
var delivery = regexp.MustCompile(`(?i)^//(cdn\.|unpkg|esm\.sh|[a-z.]*jsdelivr)`)

// foreign finds addresses of other hosts that a browser would fetch from.
func foreign(text string) string {
	const window = 40
	for at := 0; ; at += 2 {
		next := strings.Index(text[at:], "//")
		if next < 0 {
			return ""
		}
		at += next
		before, after := text[max(0, at-window):at], text[at:min(len(text), at+window)]
		if fetch.MatchString(before) || delivery.MatchString(after) {
			return before + after
		}
	}
}

func TestForeignAddressesAreFound(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`<script src="https://a.example/x.js">`: true, `<link href=//a.example>`: true, `@import url(https://a.example/x.css)`: true,
		`url( '//a.example')`: true, `import("https://a.example")`: true, `new Worker("https://a.example")`: true, "x='https://cdn.jsdelivr.net/x'": true,
		`<script src="/assets/main.js"> // see https://a.example`: false, `xmlns="http://www.w3.org/2000/svg"`: false,
	} {
		equal(t, text, foreign(text) != "", want)
	}
}

func TestGraphiQLFetchesNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	page := graphiql.Handler()
	get := func(target string, headers ...string) *httptest.ResponseRecorder {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
		for i := 0; i+1 < len(headers); i += 2 {
			request.Header.Set(headers[i], headers[i+1])
		}
		recorder := httptest.NewRecorder()
		page.ServeHTTP(recorder, request)
		return recorder
	}
	for target, kind := range map[string]string{
		"/": "text/html", "/assets/main.js": "text/javascript", "/assets/main.css": "text/css",
		"/assets/editor.worker.js": "text/javascript", "/assets/json.worker.js": "text/javascript", "/assets/graphql.worker.js": "text/javascript",
	} {
		recorder := get(target)
		equal(t, target, recorder.Code, http.StatusOK)
		policy := recorder.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "http") || strings.Contains(policy, "*") || strings.Contains(policy, "unsafe-eval") {
			t.Errorf("%s has the policy %q", target, policy)
		}
		if got := recorder.Header().Get("Content-Type"); !strings.HasPrefix(got, kind) {
			t.Errorf("%s is %s", target, got)
		}
		if found := foreign(recorder.Body.String()); found != "" {
			t.Errorf("%s fetches %s", target, found)
		}
		if target == "/" {
			continue
		}
		packed := get(target, "Accept-Encoding", "gzip, br")
		equal(t, target+" is packed", packed.Header().Get("Content-Encoding"), "gzip")
		if packed.Body.Len() >= recorder.Body.Len() {
			t.Errorf("%s is no smaller when packed", target)
		}
	}
	for _, target := range []string{"/assets/none.js", "/assets/..%2findex.html", "/assets/", "/graphql"} {
		equal(t, target, get(target).Code, http.StatusNotFound)
	}
}
