package graph_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/headrace/headrace/graph"
)

// The documents that keep a server without limits busy. Each fits into the limits of bytes and tokens, or of those that
// are named, and is refused before it is validated or executed.
func TestWorstDocumentsAreRefused(t *testing.T) {
	t.Parallel()
	repeat := strings.Repeat
	nest := func(n int, open, inner, end string) string { return repeat(open, n) + inner + repeat(end, n) }
	var spreading, doubling, distinct, thirty strings.Builder
	for i := range 30 {
		fmt.Fprintf(&thirty, "b%d: id ", i)
	}
	for i := range 60 {
		fmt.Fprintf(&spreading, "fragment F%d on Query { %s } ", i, repeat("event(position: 1) { id } ", 5))
		fmt.Fprintf(&doubling, "fragment D%d on Cart { ...D%d ...D%d } ", i, i+1, i+1)
		fmt.Fprintf(&distinct, "a%d: event(position: 1) { id } ", i)
	}
	var all strings.Builder
	for i := range 60 {
		fmt.Fprintf(&all, "...F%d ", i)
	}
	for _, c := range []struct {
		name, document, code string
		cfg                  graph.Config
	}{
		{name: "equal fields", document: "{ " + repeat("__typename ", 1_990) + "}", code: "DOCUMENT_LIMIT_EXCEEDED"},
		{name: "equal fields, more tokens", document: "{ " + repeat("__typename ", 4_990) + "}", code: "DOCUMENT_LIMIT_EXCEEDED", cfg: graph.Config{MaxTokens: 5_000}},
		{name: "more tokens than allowed", document: "{ " + repeat("__typename ", 20_000) + "}", code: "DOCUMENT_LIMIT_EXCEEDED"},
		{name: "more tokens than allowed, in fewer bytes", document: "{ " + repeat("a ", 20_000) + "}", code: "GRAPHQL_PARSE_FAILED"},
		{name: "equal fields with sets", document: "{ " + repeat("carts { nodes { id } } ", 240) + "}", code: "DOCUMENT_LIMIT_EXCEEDED"},
		{name: "equal fields in nested fragments", document: "{ " + nest(200, "... { ", repeat("__typename ", 300), "}") + "}", code: "DOCUMENT_LIMIT_EXCEEDED"},
		{name: "fragments of equal fields", document: "{ " + all.String() + "} " + spreading.String(), code: "DOCUMENT_LIMIT_EXCEEDED", cfg: graph.Config{MaxTokens: 5_000}},
		{name: "fragments that double", document: `{ cart(id: "x") { ...D0 } } ` + doubling.String() + "fragment D60 on Cart { id }", code: "DOCUMENT_LIMIT_EXCEEDED"},
		{name: "a fragment in itself", document: `{ cart(id: "x") { ...A } } fragment A on Cart { ...A }`, code: "GRAPHQL_VALIDATION_FAILED"},
		{name: "a cycle of fragments", document: `{ ...A } fragment A on Query { ...B } fragment B on Query { __typename ... { ...C } } fragment C on Query { ...A }`, code: "GRAPHQL_VALIDATION_FAILED"},
		{name: "a cycle through fields", document: `{ ...A } fragment A on Query { carts { nodes { ...B } } } fragment B on Cart { items { ...B } ...B }`, code: "GRAPHQL_VALIDATION_FAILED"},
		{name: "a cycle that nothing uses", document: `{ __typename } fragment A on Query { ...B } fragment B on Query { ...A }`, code: "GRAPHQL_VALIDATION_FAILED"},
		{name: "aliases of one field", document: `{ cart(id: "x") { ` + thirty.String() + "... { " + strings.ReplaceAll(thirty.String(), "b", "c") + "} } }", code: "ALIAS_LIMIT_EXCEEDED"},
		{name: "aliases of fragments", document: `{ cart(id: "x") { ...A } carts { nodes { ...A } } orders { nodes { id } } } fragment A on Cart { ` + thirty.String() + "}", code: "ALIAS_LIMIT_EXCEEDED"},
		{name: "aliases of a root field", document: "{ " + distinct.String() + "}", code: "ROOT_FIELD_LIMIT_EXCEEDED"},
		{name: "directives", document: "{ __typename " + repeat("@skip(if: false) ", 6) + "}", code: "DIRECTIVE_LIMIT_EXCEEDED"},
		{name: "directives that are not known", document: "{ __typename " + repeat("@a", 900) + "}", code: "DIRECTIVE_LIMIT_EXCEEDED"},
		{name: "directives of fragments", document: "{ ... " + repeat("@include(if: true) ", 6) + "{ __typename ...F " + repeat("@a", 6) + "} } fragment F on Query " + repeat("@a", 6) + " { __typename }", code: "DIRECTIVE_LIMIT_EXCEEDED"},
		{name: "directives of an operation", document: "query " + repeat("@a", 6) + " { __typename }", code: "DIRECTIVE_LIMIT_EXCEEDED"},
		{name: "deep sets", document: "{ " + nest(600, "carts { ", "id", "}") + "}", code: "GRAPHQL_VALIDATION_FAILED"},
		{name: "deeper sets than the parser goes", document: nest(5_000, "{a", "", "}"), code: "GRAPHQL_PARSE_FAILED", cfg: graph.Config{MaxTokens: 100_000}},
		{name: "deep values", document: "{ cart(id: " + nest(900, "[", "", "]") + ") { id } }", code: "GRAPHQL_VALIDATION_FAILED"},
		{name: "deeper values than the parser goes", document: "{ cart(id: " + nest(5_000, "[", "", "]") + ") { id } }", code: "GRAPHQL_PARSE_FAILED", cfg: graph.Config{MaxTokens: 100_000}},
		{name: "a long document", document: "{ __typename } #" + repeat("x", 64<<10), code: "DOCUMENT_LIMIT_EXCEEDED"},
		{name: "a long list of ids", document: `{ nodes(ids: [` + repeat(`"a",`, 900) + `]) { id ... on Cart { id } ... on Order { id } ` + repeat("... on User { a: id } ", 30) + `} }`, code: "COMPLEXITY_LIMIT_EXCEEDED"},
	} {
		ask := bare(t, c.cfg)
		a := ask(http.MethodPost, "/graphql", query(t, c.document))
		if a.code() != c.code {
			t.Errorf("%s: %.200s", c.name, a.raw)
		}
		if len(a.Errors) > 20 || len(a.raw) > 10_000 {
			t.Errorf("%s is answered with %d errors of %d bytes", c.name, len(a.Errors), len(a.raw))
		}
	}
}

// What comes as variables is bounded by its bytes, and read once, however deep or long it is.
func TestWorstVariablesAreRefused(t *testing.T) {
	t.Parallel()
	ask := bare(t, graph.Config{})
	const nodes = `{"query": "query($ids: [ID!]!) { nodes(ids: $ids) { id } }", "variables": {"ids": %s}}`
	const filtered = `{"query": "query($f: CartFilter) { carts(filter: $f) { nodes { id } } }", "variables": {"f": %s}}`
	for _, c := range []struct{ name, body, code string }{
		{"more ids than a page holds", fmt.Sprintf(nodes, "["+strings.Repeat(`"a",`, 20_000)+`"a"]`), "COMPLEXITY_LIMIT_EXCEEDED"},
		{"deep lists", fmt.Sprintf(nodes, strings.Repeat("[", 5_000)+strings.Repeat("]", 5_000)), "GRAPHQL_VALIDATION_FAILED"},
		{"lists deeper than JSON may be", fmt.Sprintf(nodes, strings.Repeat("[", 50_000)+strings.Repeat("]", 50_000)), "BAD_REQUEST"},
		{"deep objects", fmt.Sprintf(filtered, strings.Repeat(`{"ownerId":`, 5_000)+"1"+strings.Repeat("}", 5_000)), "GRAPHQL_VALIDATION_FAILED"},
		{"unknown fields", fmt.Sprintf(filtered, `{"ownerId": "a"`+strings.Repeat(`,"x": 1`, 5_000)+"}"), "GRAPHQL_VALIDATION_FAILED"},
		{"more bytes than allowed", fmt.Sprintf(nodes, `["`+strings.Repeat("a", 256<<10)+`"]`), "REQUEST_TOO_LARGE"},
		{"no list", fmt.Sprintf(nodes, `{"a": 1}`), "GRAPHQL_VALIDATION_FAILED"},
		{"a page as large as numbers go", `{"query": "query($n: Int) { carts(first: $n) { nodes { id } } }", "variables": {"n": 2147483647}}`, "COMPLEXITY_LIMIT_EXCEEDED"},
	} {
		a := ask(http.MethodPost, "/graphql", c.body)
		if a.code() != c.code {
			t.Errorf("%s: %.300s", c.name, a.raw)
		}
		if len(a.raw) > 10_000 {
			t.Errorf("%s is answered with %d bytes", c.name, len(a.raw))
		}
	}
}

func TestCostCountsWhatIsDear(t *testing.T) {
	t.Parallel()
	for document, cost := range map[string]int{
		`{ carts(first: 3) { nodes { id status } } }`:                                           10,
		`{ carts(first: 3) { pageInfo { hasNextPage endCursor } nodes { id } } }`:               10, // the page has one pageInfo
		`{ carts(first: 3) { edges { cursor node { id } } } }`:                                  13,
		`{ carts(first: 3) { nodes { items { sku } } } }`:                                       1 + 3*(1+10*2),
		`{ carts(first: 3) { ...P } } fragment P on CartConnection { nodes { id } }`:            7,
		`{ carts(first: 3) { ... { nodes { id } } } b: carts(last: 2) { nodes { id } } }`:       7 + 5,
		`{ carts { nodes { id } } }`:                                                            41,
		`{ cart(id: "x", asOf: {version: 1}) { id } }`:                                          101,
		`{ history(id: "x", first: 3) { totalCount nodes { version } } }`:                       100 + 1 + 3*2,
		`{ history(id: "x", first: 3) { nodes { state { id } } } }`:                             100 + 3*(1+5+1),
		`subscription { cartsChanged { kind carts { id } removed } }`:                           1 + 2 + 100*2,
		`subscription { cartsChanged(first: 3) { carts { id } } }`:                              1 + 3*2,
		`{ carts(first: 3) { totalCount } }`:                                                    101,
		`{ a: cart(id: "x") { id } b: cart(id: "x", atLeast: "t") { id } }`:                     2 + 11,
		`mutation { abandonCart(input: {cartId: "x"}) { receipt { version } cart { id } } }`:    1 + 2 + 11,
		`mutation { abandonCart(input: {cartId: "x"}) { userErrors { code message } } }`:        1 + 10*3,
		`{ nodes(ids: ["a", "b", "c"]) { id ... on Cart { items { sku } } } }`:                  1 + 3*(1+10*2),
		`{ events(first: 5) { head nodes { metadata { actor } } } }`:                            2 + 5*3,
		`query { nodes(ids: "a") { id } }`:                                                      2,
		`{ cart(id: "x") { __typename } }`:                                                      2,
		`{ a: carts(first: 2147483647) { edges { node { items { lineTotal { amount } } } } } }`: 1<<31 - 1,
	} {
		for limit, refused := range map[int]bool{cost: false, cost - 1: true} {
			a := bare(t, graph.Config{MaxCost: limit})(http.MethodPost, "/graphql", query(t, document))
			if (a.code() == "COMPLEXITY_LIMIT_EXCEEDED") != refused && cost < 1<<31-1 {
				t.Errorf("%s costs something else than %d: %.200s", document, cost, a.raw)
			}
			if a.code() != "COMPLEXITY_LIMIT_EXCEEDED" && cost == 1<<31-1 {
				t.Errorf("%s is let through: %.200s", document, a.raw)
			}
		}
	}
}
