package graph

import (
	"crypto/sha256"
	_ "embed" // the schema's text
	"encoding/base64"
	"net/http"
	"strings"
	"time"
)

// schemaText is the whole schema as one document with its descriptions, printed by make generate.
//
//go:embed generated/schema.graphql
var schemaText string

// publishSchema serves the schema to tools that make client code from it: they get 304 as long as it is unchanged.
func publishSchema() http.HandlerFunc {
	sum := sha256.Sum256([]byte(schemaText))
	etag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/plain; charset=utf-8") // browsers show it, and tools do not care
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", etag)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(schemaText))
	}
}
