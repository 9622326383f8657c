// Package graphiql serves GraphiQL from the program itself: no file comes from elsewhere, and its policy lets the browser
// fetch none. It talks to /graphql of the same origin.
//
// The bundle in dist is made by npm ci && npm run build in this folder, and committed. The operations in its panel of
// examples are read from examples.graphql when the page is opened, so that changing them needs no Node.
package graphiql

import (
	"compress/gzip"
	"embed"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed index.html examples.graphql dist/*.gz
var files embed.FS

// policy lets the page's own files run and nothing else; no script is inline or made of text. Inline styles are let
// through, because Monaco, the editor in GraphiQL, writes its colours and measures into the page as such.
const policy = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self' 'unsafe-inline'; " +
	"font-src 'self' data:; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the page on / and its files below /assets/. It is safe for concurrent use.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		setHeaders(w.Header(), "text/html; charset=utf-8")
		http.ServeFileFS(w, r, files, "index.html")
	})
	mux.HandleFunc("GET /assets/examples.graphql", func(w http.ResponseWriter, r *http.Request) {
		setHeaders(w.Header(), "text/plain; charset=utf-8")
		http.ServeFileFS(w, r, files, "examples.graphql")
	})
	mux.HandleFunc("GET /assets/{name}", serveAsset)
	return mux
}

func setHeaders(h http.Header, contentType string) {
	h.Set("Content-Security-Policy", policy)
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
}

// serveAsset sends a file as it is stored, compressed, or unpacked to the few clients that ask for that.
func serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	file, err := files.Open("dist/" + name + ".gz")
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer file.Close()
	h := w.Header()
	setHeaders(h, mime.TypeByExtension(path.Ext(name)))
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		_, _ = io.Copy(w, file)
		return
	}
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		http.Error(w, "the file is damaged", http.StatusInternalServerError)
		return
	}
	_, _ = io.Copy(w, unpacked)
}
