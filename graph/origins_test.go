package graph_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/headrace/headrace/graph"
)

const (
	ownOrigin     = "http://example.com" // that of httptest's requests
	trustedOrigin = "https://shop.example.org"
	foreignOrigin = "https://evil.example"
)

// Each row is a request as a browser, or another client, sends it for the page that is named.
func TestOtherSitesCannotSendRequests(t *testing.T) {
	t.Parallel()
	handler, err := graph.NewHandler(&graph.Resolver{}, graph.Config{Origins: []string{trustedOrigin + "/"}, Logger: slogTo(&logged{})})
	must(t, err)
	type row struct {
		name, origin, site, contentType string
		post, get                       int // statuses
	}
	const json = "application/json"
	for _, c := range []row{
		{"no browser", "", "", json, 200, 200},
		{"no browser, another content type", "", "", "text/plain", 415, 200},
		{"own page", ownOrigin, "same-origin", json, 200, 200},
		{"own page, older browser", ownOrigin, "", json, 200, 200},
		{"typed by the user", "", "none", json, 200, 200},
		{"trusted page", trustedOrigin, "cross-site", json, 200, 200},
		{"trusted page, older browser", trustedOrigin, "", json, 200, 200},
		{"trusted page of the same site", trustedOrigin, "same-site", json, 200, 200},
		{"form of a trusted page", trustedOrigin, "cross-site", "application/x-www-form-urlencoded", 415, 200},
		{"foreign page", foreignOrigin, "cross-site", json, 403, 403},
		{"foreign page, older browser", foreignOrigin, "", json, 403, 403},
		{"foreign page of the same site", "http://other.example.com", "same-site", json, 403, 403},
		{"own host over another scheme", "https://example.com", "cross-site", json, 403, 403},
		{"own host on another port", ownOrigin + ":8080", "same-site", json, 403, 403},
		{"trusted host over another scheme", "http://shop.example.org", "cross-site", json, 403, 403},
		{"host that begins like a trusted one", trustedOrigin + ".evil.example", "cross-site", json, 403, 403},
		{"image or script of a foreign page", "", "cross-site", "", 403, 403},
		{"image or script of a page of the same site", "", "same-site", "", 403, 403},
		{"sandboxed page", "null", "cross-site", json, 403, 403},
		{"sandboxed page, older browser", "null", "", json, 403, 403},
		{"form of a foreign page", foreignOrigin, "cross-site", "application/x-www-form-urlencoded", 403, 403},
		{"upload of a foreign page", foreignOrigin, "cross-site", "multipart/form-data; boundary=x", 403, 403},
		{"text of a foreign page", foreignOrigin, "", "text/plain", 403, 403},
	} {
		send := func(method, target, body string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
			for name, value := range map[string]string{"Origin": c.origin, "Sec-Fetch-Site": c.site, "Content-Type": c.contentType} {
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, r)
			if recorder.Code == http.StatusForbidden && !strings.Contains(recorder.Body.String(), "ORIGIN_NOT_TRUSTED") {
				t.Errorf("%s %s is refused without a code: %s", c.name, method, recorder.Body)
			}
			if allowed := recorder.Header().Get("Access-Control-Allow-Origin"); allowed != "" && allowed != trustedOrigin {
				t.Errorf("%s %s: %s may read the answer", c.name, method, allowed)
			}
			if c.origin == trustedOrigin && recorder.Header().Get("Access-Control-Allow-Credentials") != "true" {
				t.Errorf("%s %s: the trusted page may not read the answer", c.name, method)
			}
			return recorder
		}
		equal(t, c.name+": POST", send(http.MethodPost, "/graphql", `{"query": "{ __typename }"}`).Code, c.post)
		equal(t, c.name+": GET", send(http.MethodGet, "/graphql?query=%7B__typename%7D", "").Code, c.get)
		mutation := "mutation { abandonCart(input: {cartId: \"x\"}) { userErrors { code } } }"
		want := http.StatusMethodNotAllowed
		if c.get == http.StatusForbidden {
			want = c.get
		}
		equal(t, c.name+": mutation by GET", send(http.MethodGet, "/graphql?query="+url.QueryEscape(mutation), "").Code, want)
	}
}

// What a page can send without the browser asking first, in whatever form: none of it is read as a request.
func TestSimpleRequestsRunNoMutation(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{Origins: []string{trustedOrigin}})
	const mutation = `mutation { openCart(input: {ownerId: "ada", currency: "EUR"}) { receipt { version } } }`
	body := query(t, mutation)
	form := url.Values{"query": {mutation}}.Encode()
	for contentType, text := range map[string]string{
		"": body, "text/plain": body, "text/plain; application/json": body, "text/plain; charset=utf-8": body,
		"application/x-www-form-urlencoded": form, "application/x-www-form-urlencoded; application/json": body,
		"multipart/form-data; boundary=x": "--x\r\nContent-Disposition: form-data; name=\"operations\"\r\n\r\n" + body + "\r\n--x--\r\n",
		"application/graphql":             mutation, "application/octet-stream": body,
	} {
		for _, origin := range []string{"", trustedOrigin} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/graphql", strings.NewReader(text))
			must(t, err)
			if contentType != "" {
				r.Header.Set("Content-Type", contentType)
			}
			if origin != "" {
				r.Header.Set("Origin", origin)
			}
			equal(t, contentType+" from "+origin, b.do(r).status, http.StatusUnsupportedMediaType)
		}
	}
	head, err := b.store.Head(t.Context())
	must(t, err)
	equal(t, "events", head.Position, int64(0))
}

func TestTrustedPagesMayReadAnswers(t *testing.T) {
	t.Parallel()
	preflight := func(handler http.Handler, origin, method, headers string) http.Header {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodOptions, "/graphql", http.NoBody)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", method)
		r.Header.Set("Access-Control-Request-Headers", headers)
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, r)
		return recorder.Header()
	}
	trusting, err := graph.NewHandler(&graph.Resolver{}, graph.Config{Origins: []string{trustedOrigin}})
	must(t, err)
	plain, err := graph.NewHandler(&graph.Resolver{}, graph.Config{})
	must(t, err)

	h := preflight(trusting, trustedOrigin, "POST", "authorization,content-type,x-request-id")
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": trustedOrigin, "Access-Control-Allow-Methods": "POST", "Access-Control-Allow-Credentials": "true",
		"Access-Control-Allow-Headers": "authorization,content-type,x-request-id", "Access-Control-Max-Age": "7200",
	} {
		equal(t, name, h.Get(name), want)
	}
	equal(t, "DELETE", preflight(trusting, trustedOrigin, "DELETE", "").Get("Access-Control-Allow-Origin"), "")
	for name, h := range map[string]http.Header{
		"another origin": preflight(trusting, foreignOrigin, "POST", "content-type"),
		"none trusted":   preflight(plain, trustedOrigin, "POST", "content-type"),
		"sandboxed":      preflight(trusting, "null", "POST", "content-type"),
	} {
		for header := range h {
			if strings.HasPrefix(header, "Access-Control-Allow") {
				t.Errorf("%s is told %s", name, header)
			}
		}
	}

	ask := bare(t, graph.Config{Origins: []string{trustedOrigin}})
	answer := ask(http.MethodPost, "/graphql", query(t, "{ __typename }"), "Origin", trustedOrigin)
	for _, header := range []string{"X-Request-Id", "Etag", "Retry-After"} {
		if exposed := answer.header.Get("Access-Control-Expose-Headers"); !strings.Contains(strings.ToLower(exposed), strings.ToLower(header)) {
			t.Errorf("%s is not exposed: %s", header, exposed)
		}
	}
	if vary := answer.header.Values("Vary"); !strings.Contains(strings.Join(vary, ","), "Origin") {
		t.Errorf("the answer varies by %v", vary)
	}
	for _, origin := range []string{"*", "shop.example.org", "https://shop.example.org/path", ""} {
		if _, err := graph.NewHandler(&graph.Resolver{}, graph.Config{Origins: []string{origin}}); err == nil {
			t.Errorf("%q is taken for an origin", origin)
		}
	}
}
