package graphiql_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/headrace/headrace/graph/graphiql"
)

func get(t *testing.T, target string) *httptest.ResponseRecorder {
	t.Helper()
	recorder := httptest.NewRecorder()
	graphiql.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody))
	if recorder.Code != http.StatusOK {
		t.Fatalf("%s: status %d", target, recorder.Code)
	}
	return recorder
}

func TestEveryFileComesWithThePolicy(t *testing.T) {
	t.Parallel()
	for _, target := range []string{
		"/", "/assets/main.js", "/assets/main.css", "/assets/editor.worker.js", "/assets/json.worker.js",
		"/assets/graphql.worker.js", "/assets/examples.graphql",
	} {
		header := get(t, target).Header()
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache", "Referrer-Policy": "no-referrer",
		} {
			if got := header.Get(name); got != want {
				t.Errorf("%s: %s is %q", target, name, got)
			}
		}
		directives := strings.Split(header.Get("Content-Security-Policy"), "; ")
		for _, want := range []string{
			"default-src 'none'", "script-src 'self'", "worker-src 'self'", "connect-src 'self'", "base-uri 'none'",
			"form-action 'none'", "frame-ancestors 'none'",
		} {
			if !slices.Contains(directives, want) {
				t.Errorf("%s: the policy lacks %s: %q", target, want, directives)
			}
		}
	}
}

// The page has no script but the one it names, so that the policy can do without unsafe-inline for scripts.
func TestThePageNamesItsOwnFilesOnly(t *testing.T) {
	t.Parallel()
	page := get(t, "/").Body.String()
	for _, text := range []string{"//", "<style", "onload", "integrity"} {
		if strings.Contains(page, text) {
			t.Errorf("the page holds %q", text)
		}
	}
	if got := strings.Count(page, "<script"); got != 1 || !strings.Contains(page, `<script src="/assets/main.js"></script>`) {
		t.Errorf("the page has %d scripts", got)
	}
}
