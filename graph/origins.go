package graph

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/rs/cors"

	"github.com/headrace/headrace/graph/transport"
)

// corsMaxAge is for how long, in seconds, browsers need not ask again. None keeps an answer longer.
const corsMaxAge = 7200

// guard keeps other sites' pages out. A page of an origin that is not trusted can send no request that is executed, not
// even a GET, whose answer it could not read but whose work would be done; the browser says where a request comes from,
// and clients that are no browsers say nothing and are let through. Pages of trusted origins may read the answers, with
// cookies.
//
// What browsers send without asking first, such as forms, cannot run a mutation in any case: the only content type that
// is read is application/json.
func (h *Handler) guard(next http.Handler) (http.Handler, error) {
	h.protection = http.NewCrossOriginProtection()
	origins := make([]string, len(h.cfg.Origins))
	for i, origin := range h.cfg.Origins {
		origins[i] = strings.TrimSuffix(origin, "/")
		if err := h.protection.AddTrustedOrigin(origins[i]); err != nil {
			return nil, fmt.Errorf("trusted origin %q: %w", origin, err)
		}
	}
	var guarded http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == graphqlPath && !h.trusts(r) {
			transport.Refuse(w, coded(codeOrigin, "pages of this origin are not trusted"))
			return
		}
		next.ServeHTTP(w, r)
	})
	if len(origins) == 0 {
		return guarded, nil
	}
	return cors.New(cors.Options{
		AllowedOrigins:   origins,
		AllowedMethods:   []string{http.MethodGet, http.MethodPost},
		AllowedHeaders:   []string{"*"},
		ExposedHeaders:   []string{"X-Request-Id", "ETag", "Retry-After", "WWW-Authenticate"},
		AllowCredentials: true,
		MaxAge:           corsMaxAge,
	}).Handler(guarded), nil
}

// trusts judges every method as the standard library judges those that change something.
func (h *Handler) trusts(r *http.Request) bool {
	if r.Method != http.MethodPost {
		r = r.WithContext(r.Context())
		r.Method = http.MethodPost
	}
	return h.protection.Check(r) == nil
}
