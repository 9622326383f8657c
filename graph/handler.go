// Package graph is the outside language: the schema, and what answers it over HTTP, server-sent events and WebSockets.
//
// It promises that a committed command never looks failed; that an answer asked for with a token includes what the
// token stands for or says in a typed error how far behind it is; that event subscriptions have neither hole nor
// repeat; and that clients never see the text of an error that was not written for them. It decides nothing about
// carts, orders or users, and authenticates nobody: see Config.Login.
package graph

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/extension"
	"github.com/99designs/gqlgen/graphql/handler/transport"

	"github.com/headrace/headrace/graph/direct"
	"github.com/headrace/headrace/graph/generated"
	"github.com/headrace/headrace/graph/graphiql"
)

// Handler serves /graphql, /schema.graphql where that is published, and in development GraphiQL on /. It is safe for concurrent use.
type Handler struct {
	cfg     Config
	present presenter
	graphql *handler.Server
	routes  http.Handler

	documents *documents

	protection *http.CrossOriginProtection

	life    context.Context // ends when the handler drains
	drain   context.CancelFunc
	streams sync.WaitGroup
	open    atomic.Int64 // streams
	mu      sync.Mutex   // orders the first wait for streams and the last that begins
}

const graphqlPath = "/graphql"

var errDraining = errors.New("the server is going down")

// NewHandler returns the handler. An error says that an origin of the configuration is not one, or what is
// wrong with the manifest of trusted documents.
func NewHandler(r *Resolver, cfg Config) (*Handler, error) {
	return NewHandlerOf(newRoot(r, cfg.withDefaults()), cfg)
}

// NewHandlerOf is NewHandler for resolvers of another make, with the same limits, rules and transports around them: those
// of a benchmark that answers from memory.
func NewHandlerOf(resolvers generated.ResolverRoot, cfg Config) (*Handler, error) {
	cfg = cfg.withDefaults()
	h := &Handler{cfg: cfg, present: presenter{cfg.Logger}}
	h.life, h.drain = context.WithCancel(context.Background())
	schema := generated.NewExecutableSchema(generated.Config{Resolvers: resolvers})
	var err error
	if h.documents, err = newDocuments(schema.Schema(), &h.cfg); err != nil {
		return nil, err
	}
	h.graphql = h.newServer(schema)

	mux := http.NewServeMux()
	mux.Handle(graphqlPath, http.HandlerFunc(h.serveGraphQL))
	if cfg.Introspection == On || cfg.PublishSchema {
		mux.HandleFunc("GET /schema.graphql", publishSchema())
	}
	if cfg.GraphiQL == On {
		mux.Handle("/", graphiql.Handler())
	}
	h.routes, err = h.guard(mux)
	return h, err
}

func (h *Handler) newServer(schema graphql.ExecutableSchema) *handler.Server {
	s := handler.New(schema)
	s.AddTransport(&overHTTP{handler: h})
	s.AddTransport(transport.Websocket{
		Implementation:   &sockets{handler: h},
		InitTimeout:      h.cfg.InitTimeout,
		InitFunc:         h.loginSocket,
		PingPongInterval: h.cfg.KeepAlive,
		ErrorFunc:        func(context.Context, error) {}, // a peer that went away is no news
	})
	s.SetParserTokenLimit(h.cfg.MaxTokens)
	s.SetQueryCache(h.documents)
	s.Use(h.documents)
	s.SetErrorPresenter(h.present.present)
	s.SetRecoverFunc(h.present.recovered)
	s.SetDisableSuggestion(h.cfg.Suggestions != On)
	s.Use(limits{cfg: &h.cfg})
	s.Use(new(direct.Extension))
	s.Use(reads{freshness: h.cfg.Freshness})
	requests := newRequestLog(&h.cfg)
	s.AroundResponses(requests.aroundResponses)
	s.AroundResponses(capErrors)
	if h.cfg.Introspection == On {
		s.Use(extension.Introspection{})
	}
	s.AroundOperations(requests.aroundOperations)
	s.AroundOperations(newRules().aroundOperations)
	s.AroundOperations(newQuota(&h.cfg).aroundOperations)
	s.AroundOperations(h.aroundStreams)
	return s
}

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.routes.ServeHTTP(w, r) }

func (h *Handler) serveGraphQL(w http.ResponseWriter, r *http.Request) {
	req := newRequest(r)
	w.Header().Set("X-Request-Id", req.correlationID)
	ctx := context.WithValue(r.Context(), requestKey{}, req)
	if !isSocket(r) {
		var err error
		if ctx, err = h.login(ctx, r, nil); err != nil {
			w.Header().Set("WWW-Authenticate", "Bearer")
			writeError(w, http.StatusUnauthorized, err)
			return
		}
	}
	if !isSocket(r) && !wantsEvents(r) {
		ctx, cancel := context.WithTimeout(ctx, h.cfg.RequestTimeout)
		defer cancel()
		h.graphql.ServeHTTP(w, r.WithContext(ctx))
		return
	}
	if isSocket(r) {
		if status, refusal := h.refuseSocket(r); refusal != nil {
			writeError(w, status, refusal)
			return
		}
		ctx = context.WithValue(ctx, upgradeKey{}, r)
	}
	ctx, done, err := h.beginStream(ctx)
	if err != nil {
		w.Header().Set("Retry-After", "1")
		writeError(w, http.StatusServiceUnavailable, err)
		return
	}
	defer done()
	h.graphql.ServeHTTP(w, r.WithContext(ctx))
}

// ReloadDocuments reads the manifest of trusted documents anew. When it is wrong, the error says why, and the one before
// stays in force.
func (h *Handler) ReloadDocuments() error { return h.documents.reload() }

// beginStream counts a stream and ties it to the life of the handler.
func (h *Handler) beginStream(ctx context.Context) (context.Context, func(), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.life.Err() != nil {
		return nil, nil, coded(codeDraining, "%s", errDraining)
	}
	if h.open.Load() >= int64(h.cfg.MaxStreams) {
		return nil, nil, coded(codeTooManyStreams, "at most %d streams may be open", h.cfg.MaxStreams)
	}
	h.open.Add(1)
	h.streams.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	unbind := context.AfterFunc(h.life, func() { cancel(errDraining) })
	return ctx, func() {
		unbind()
		cancel(nil)
		h.open.Add(-1)
		h.streams.Done()
	}, nil
}

// Drain ends all subscriptions, so that their clients go on with another server, and refuses new ones. It returns when
// they have ended, or with the context's error. Call it when the HTTP server begins to shut down, which waits for
// neither WebSockets nor ends event streams by itself.
func (h *Handler) Drain(ctx context.Context) error {
	h.mu.Lock()
	h.drain()
	h.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		h.streams.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain subscriptions: %w", ctx.Err())
	}
}
