// Package graph is the outside language: the schema, and what answers it over HTTP, server-sent events and WebSockets.
//
// It promises that a committed command never looks failed; that an answer asked for with a token includes what the
// token stands for or says in a typed error how far behind it is; that event subscriptions have neither hole nor
// repeat; and that clients never see the text of an error that was not written for them. It decides nothing about
// carts, orders or users, and authenticates nobody: see Config.Login.
package graph

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/executor"
	"github.com/99designs/gqlgen/graphql/handler/extension"

	"github.com/headrace/headrace/graph/direct"
	"github.com/headrace/headrace/graph/generated"
	"github.com/headrace/headrace/graph/graphiql"
	"github.com/headrace/headrace/graph/transport"
)

// Handler serves /graphql, /schema.graphql where that is published, and in development GraphiQL on /. It is safe for concurrent use.
type Handler struct {
	cfg     Config
	present presenter
	graphql *transport.Server
	routes  http.Handler

	documents  *documents
	protection *http.CrossOriginProtection
}

const graphqlPath = "/graphql"

// NewHandler returns the handler. An error says what has no rule, that an origin of the configuration is not one, or
// what is wrong with the manifest of trusted documents.
func NewHandler(r *Resolver, cfg Config) (*Handler, error) {
	root := newRoot(r, cfg.withDefaults())
	if cfg.Validator == nil {
		cfg.Validator = newETags(root, generated.NewExecutableSchema(generated.Config{}).Schema()).of
	}
	return NewHandlerOf(root, cfg)
}

// NewHandlerOf is NewHandler for resolvers of another make, with the same limits, rules and transports around them: those
// of a benchmark that answers from memory.
func NewHandlerOf(resolvers generated.ResolverRoot, cfg Config) (*Handler, error) {
	cfg = cfg.withDefaults()
	h := &Handler{cfg: cfg, present: presenter{cfg.Logger}}
	schema := generated.NewExecutableSchema(generated.Config{Resolvers: resolvers})
	if missing := newRules().missing(schema.Schema()); len(missing) > 0 {
		return nil, fmt.Errorf("nobody said in graph/rules.go who may ask for or see %s", strings.Join(missing, ", "))
	}
	var err error
	if h.documents, err = newDocuments(schema.Schema(), &h.cfg); err != nil {
		return nil, err
	}
	h.graphql = transport.New(h.newExecutor(schema), transport.Config{
		MaxBodyBytes: cfg.MaxBodyBytes, MaxVariablesBytes: cfg.MaxVariablesBytes,
		RequestTimeout: cfg.RequestTimeout, InitTimeout: cfg.InitTimeout, KeepAlive: cfg.KeepAlive,
		WriteTimeout: cfg.StreamWriteTimeout, SlowAfter: cfg.SlowAfter,
		QueueMessages: cfg.QueueMessages, QueueBytes: cfg.QueueBytes,
		MaxOperations: cfg.MaxSocketStreams, MaxStreams: cfg.MaxStreams,
		Login: cfg.Login, Admit: cfg.Admit, Validator: cfg.Validator, Recover: h.present.recovered,
	})

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

// newExecutor returns gqlgen's executor with what is ours around it.
func (h *Handler) newExecutor(schema graphql.ExecutableSchema) *executor.Executor {
	e := executor.New(schema)
	e.SetParserTokenLimit(h.cfg.MaxTokens)
	e.SetQueryCache(h.documents)
	e.Use(h.documents)
	e.SetErrorPresenter(h.present.present)
	e.SetRecoverFunc(h.present.recovered)
	e.SetDisableSuggestion(h.cfg.Suggestions != On)
	e.Use(limits{cfg: &h.cfg})
	e.Use(new(direct.Extension))
	e.Use(reads{within: h.cfg.WaitDefault, freshness: h.cfg.Freshness})
	if h.cfg.Introspection == On {
		e.Use(extension.Introspection{})
	}
	a := around{requests: newRequestLog(&h.cfg), rules: newRules(), quota: newQuota(&h.cfg), present: h.present}
	e.AroundOperations(a.operation)
	e.AroundResponses(a.response)
	return e
}

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.routes.ServeHTTP(w, r) }

func (h *Handler) serveGraphQL(w http.ResponseWriter, r *http.Request) {
	req := newRequest(r)
	w.Header()[headerRequestID] = []string{req.correlationID}
	h.graphql.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestKey{}, req)))
}

// ReloadDocuments reads the manifest of trusted documents anew. When it is wrong, the error says why, and the one before
// stays in force.
func (h *Handler) ReloadDocuments() error { return h.documents.reload() }

// Streams is how many WebSockets and event streams are open.
func (h *Handler) Streams() int { return h.graphql.Streams() }

// Drain ends all subscriptions, so that their clients go on with another server, and refuses new ones. It returns when
// they have ended, or with the context's error. Call it when the HTTP server begins to shut down, which waits for
// neither WebSockets nor ends event streams by itself.
func (h *Handler) Drain(ctx context.Context) error { return h.graphql.Drain(ctx) }
