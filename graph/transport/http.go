package transport

import (
	"context"
	"net/http"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
)

// plain answers GET and POST with one response each, as the GraphQL-over-HTTP draft says. It takes what the other
// transports leave.
type plain struct{ *Server }

var _ graphql.Transport = plain{}

// Supports is true for every request.
func (plain) Supports(*http.Request) bool { return true }

// Do answers one request.
func (t plain) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	take := negotiate(r.Header)
	begun := false
	defer t.guard(w, r, take.json, &begun)
	if take.json == "" && !take.events {
		t.writeRefusal(w, typeJSON, refuse(CodeNotAcceptable, "the media types are %s, %s, and %s for streams", typeResponse, typeJSON, typeEvents))
		return
	}
	a, refused := t.receive(w, r)
	if refused != nil {
		t.writeRefusal(w, take.json, refused)
		return
	}
	oc, errs := exec.CreateOperationContext(a.ctx, a.params)
	if errs != nil {
		response := exec.DispatchError(graphql.WithOperationContext(a.ctx, oc), errs)
		write(w, status(take.json, response), take.json, response)
		return
	}
	kind := oc.Operation.Operation
	if refused := refuseByGET(w, r, kind); refused != nil {
		t.writeRefusal(w, take.json, refused)
		return
	}
	if kind == ast.Subscription {
		if take.events { // named, though not before the others
			begun = true
			events(t).answer(w, r, exec, a, oc, nil)
			return
		}
		t.writeRefusal(w, take.json, refuse(CodeNeedsStream,
			"a subscription needs a WebSocket (%s) or Accept: %s", protocol, typeEvents))
		return
	}
	if r.Method == http.MethodGet && t.unchanged(w, r, a.ctx, oc) {
		return
	}
	limited := withTimeout(a.ctx, t.cfg.RequestTimeout)
	defer limited.cancel()
	responses, ctx := exec.DispatchOperation(limited, oc)
	response := orTimeout(responses(ctx))
	if len(response.Errors) > 0 {
		w.Header().Del("ETag") // it is that of the answer without errors
	}
	begun = true
	write(w, status(take.json, response), take.json, response)
}

// unchanged sets the validator of a query's answer, and says to a client that has that answer that it may keep it.
func (t plain) unchanged(w http.ResponseWriter, r *http.Request, ctx context.Context, oc *graphql.OperationContext) bool {
	if t.cfg.Validator == nil {
		return false
	}
	etag, ok := t.cfg.Validator(ctx, oc)
	if !ok {
		return false
	}
	header := w.Header()
	header.Set("ETag", etag)
	header.Set("Cache-Control", "private, no-cache")
	header.Add("Vary", "Accept, Authorization")
	for _, known := range r.Header["If-None-Match"] {
		for candidate := range strings.SplitSeq(known, ",") {
			candidate = strings.TrimSpace(candidate)
			if candidate == "*" || strings.TrimPrefix(candidate, "W/") == strings.TrimPrefix(etag, "W/") {
				w.WriteHeader(http.StatusNotModified)
				return true
			}
		}
	}
	return false
}
