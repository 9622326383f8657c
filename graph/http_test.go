package graph_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/headrace/headrace/graph"
)

// Each way in which a request can be none has a status and a code, no data, and nothing of what was sent.
func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	ask := bare(t, graph.Config{MaxBodyBytes: 500, MaxVariablesBytes: 100})
	const good, secret = `{"query": "{ __typename }"}`, "hunter2"
	long := strings.Repeat("x", 500)
	for _, c := range []struct {
		name, method, target, body string
		headers                    []string
		status                     int
		code                       string
	}{
		{"nothing acceptable", "POST", "/graphql", good, []string{"Accept", "text/html"}, 406, "NOT_ACCEPTABLE"},
		{"all weighed zero", "POST", "/graphql", good, []string{"Accept", "*/*;q=0"}, 406, "NOT_ACCEPTABLE"},
		{"another method", "DELETE", "/graphql", good, nil, 405, "METHOD_NOT_ALLOWED"},
		{"HEAD", "HEAD", "/graphql?query=%7B__typename%7D", "", nil, 405, "METHOD_NOT_ALLOWED"},
		{"a mutation by GET", "GET", "/graphql?query=mutation%7BabandonCart(input:%7BcartId:%22a%22%7D)%7Breceipt%7Bversion%7D%7D%7D", "", nil, 405, "METHOD_NOT_ALLOWED"},
		{"a subscription", "POST", "/graphql", `{"query": "subscription { events { position } }"}`, nil, 406, "SUBSCRIPTION_NEEDS_STREAM"},
		{"a subscription by GET", "GET", "/graphql?query=subscription%7Bevents%7Bposition%7D%7D", "", nil, 406, "SUBSCRIPTION_NEEDS_STREAM"},
		{"a form", "POST", "/graphql", "query=%7B__typename%7D", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "UNSUPPORTED_MEDIA_TYPE"},
		{"parts", "POST", "/graphql", "--x", []string{"Content-Type", "multipart/form-data; boundary=x"}, 415, "UNSUPPORTED_MEDIA_TYPE"},
		{"a document", "POST", "/graphql", "{ __typename }", []string{"Content-Type", "application/graphql"}, 415, "UNSUPPORTED_MEDIA_TYPE"},
		{"no type", "POST", "/graphql", good, []string{"Content-Type", ""}, 415, "UNSUPPORTED_MEDIA_TYPE"},
		{"another charset", "POST", "/graphql", good, []string{"Content-Type", "application/json; charset=utf-16"}, 415, "UNSUPPORTED_MEDIA_TYPE"},
		{"a long body", "POST", "/graphql", `{"query": "` + long + `"}`, nil, 413, "REQUEST_TOO_LARGE"},
		{"long variables", "POST", "/graphql", `{"query": "{ __typename }", "variables": {"x": "` + long[:100] + `"}}`, nil, 413, "REQUEST_TOO_LARGE"},
		{"long variables by GET", "GET", "/graphql?query=%7B__typename%7D&variables=%7B%22x%22:%22" + long[:100] + "%22%7D", "", nil, 413, "REQUEST_TOO_LARGE"},
		{"half a body", "POST", "/graphql", `{"query": "` + secret, nil, 400, "BAD_REQUEST"},
		{"a batch", "POST", "/graphql", "[" + good + "]", nil, 400, "BAD_REQUEST"},
		{"null", "POST", "/graphql", "null", nil, 400, "BAD_REQUEST"},
		{"an empty body", "POST", "/graphql", "", nil, 400, "BAD_REQUEST"},
		{"a text", "POST", "/graphql", `"` + secret + `"`, nil, 400, "BAD_REQUEST"},
		{"a query that is a number", "POST", "/graphql", `{"query": 7}`, nil, 400, "BAD_REQUEST"},
		{"a name that is a number", "POST", "/graphql", `{"query": "{ __typename }", "operationName": 7}`, nil, 400, "BAD_REQUEST"},
		{"variables that are a text", "POST", "/graphql", `{"query": "{ __typename }", "variables": "` + secret + `"}`, nil, 400, "BAD_REQUEST"},
		{"extensions that are a list", "POST", "/graphql", `{"query": "{ __typename }", "extensions": []}`, nil, 400, "BAD_REQUEST"},
		{"an id that is a number", "POST", "/graphql", `{"documentId": 7}`, nil, 400, "BAD_REQUEST"},
		{"extensions without a document", "POST", "/graphql", `{"extensions": {"other": 1}}`, nil, 400, "BAD_REQUEST"},
		{"no query by GET", "GET", "/graphql?operationName=A", "", nil, 400, "BAD_REQUEST"},
		{"an address that is none", "GET", "/graphql?query=%zz", "", nil, 400, "BAD_REQUEST"},
	} {
		a := ask(c.method, c.target, c.body, c.headers...)
		equal(t, c.name, a.status, c.status)
		equal(t, c.name+": code", a.code(), any(c.code))
		if strings.Contains(a.raw, `"data"`) || strings.Contains(a.raw, secret) {
			t.Errorf("%s is answered by %s", c.name, a.raw)
		}
		equal(t, c.name+": type", a.header.Get("Content-Type"), "application/json; charset=utf-8")
		switch {
		case c.name == "a mutation by GET":
			equal(t, c.name, a.header.Get("Allow"), "POST")
		case c.status == http.StatusMethodNotAllowed:
			equal(t, c.name, a.header.Get("Allow"), "GET, POST")
		}
	}
	nulls := ask("POST", "/graphql", `{"query": "{ __typename }", "variables": null, "operationName": null, "extensions": null}`)
	equal(t, "nulls", nulls.raw, `{"data":{"__typename":"Query"}}`)
	named := ask("POST", "/graphql", `{"documentId": "sha256:none"}`)
	equal(t, "a document that is named", named.code(), any("PERSISTED_QUERY_NOT_FOUND"))
	named = ask("GET", "/graphql?documentId=none", "")
	equal(t, "a document that is named by GET", named.code(), any("PERSISTED_QUERY_NOT_FOUND"))
}

func TestRefusedLoginsChallenge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{errors.New("secret"), 401, "UNAUTHENTICATED"},
		{&gqlerror.Error{Message: "expired", Extensions: map[string]any{"code": "UNAUTHENTICATED"}}, 401, "UNAUTHENTICATED"},
		{&gqlerror.Error{Message: "no", Extensions: map[string]any{"code": "FORBIDDEN"}}, 403, "FORBIDDEN"},
		{&gqlerror.Error{Message: "later", Extensions: map[string]any{"code": "OVERLOADED"}}, 503, "OVERLOADED"},
	} {
		ask := bare(t, graph.Config{Login: func(ctx context.Context, _ *http.Request, payload map[string]any) (context.Context, time.Time, error) {
			if payload != nil {
				t.Error("a request has a payload")
			}
			return ctx, time.Time{}, c.err
		}})
		for _, accept := range []string{"application/json", "application/graphql-response+json", "text/event-stream"} {
			a := ask("POST", "/graphql", `{"query": "{ __typename }"}`, "Accept", accept)
			equal(t, accept, a.status, c.status)
			equal(t, "code", a.code(), any(c.code))
			equal(t, "challenge", a.header.Get("WWW-Authenticate") == "Bearer", c.status == http.StatusUnauthorized)
			equal(t, "text", strings.Contains(a.raw, "secret"), false)
		}
	}
}

func TestAnswersToQueriesByGETCanBeKept(t *testing.T) {
	t.Parallel()
	executed := 0
	ask := bare(t, graph.Config{Validator: func(_ context.Context, oc *graphql.OperationContext) (string, bool) {
		executed++
		return `"7"`, oc.OperationName != "none"
	}})
	const get = "/graphql?query=query+A%7B__typename%7D+query+none%7B__typename%7D+query+bad%7Bevent(position:1)%7Bid%7D%7D&operationName="
	for _, c := range []struct {
		operation, known string
		status           int
		etag             string
	}{
		{"A", "", 200, `"7"`},
		{"A", `"6"`, 200, `"7"`},
		{"A", `"7"`, 304, `"7"`},
		{"A", `W/"7"`, 304, `"7"`},
		{"A", `"5", "7"`, 304, `"7"`},
		{"A", `*`, 304, `"7"`},
		{"none", `"7"`, 200, ""},
		{"bad", ``, 200, ""}, // its answer has errors
	} {
		a := ask("GET", get+c.operation, "", "If-None-Match", c.known)
		equal(t, c.operation+c.known, a.status, c.status)
		equal(t, "ETag", a.header.Get("ETag"), c.etag)
		equal(t, "body", a.raw == "", c.status == http.StatusNotModified)
	}
	before := executed
	equal(t, "by POST", ask("POST", "/graphql", `{"query": "{ __typename }"}`, "If-None-Match", `"7"`).status, 200)
	equal(t, "validated by POST", executed, before)
}

// What panics outside of resolvers is masked and brings nothing down, over every transport.
func TestPanicsBeforeExecutionAreMasked(t *testing.T) {
	t.Parallel()
	b := hollow(t, graph.Config{Admit: func(context.Context, *http.Request) (time.Duration, error) { panic("secret") }})
	for _, accept := range []string{"application/json", "text/event-stream"} {
		a := b.post(`{ __typename }`, nil, "Accept", accept)
		equal(t, accept, a.status, http.StatusInternalServerError)
		equal(t, "code", a.code(), any("INTERNAL_SERVER_ERROR"))
		equal(t, "told", strings.Contains(a.raw, "secret"), false)
	}
	s := b.connect()
	s.subscribe("1", `{ __typename }`, nil)
	equal(t, "code", s.failed("1")["code"], any("INTERNAL_SERVER_ERROR"))
}

func TestLongAnswersHaveALength(t *testing.T) {
	t.Parallel()
	ask := bare(t, graph.Config{Introspection: graph.On})
	long := ask("POST", "/graphql", `{"query": "{ __schema { types { name description } } }"}`)
	if long.header.Get("Content-Length") == "" || len(long.raw) < 2048 {
		t.Errorf("%d bytes have the length %q", len(long.raw), long.header.Get("Content-Length"))
	}
}
