package graph

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/executor"
	"github.com/coder/websocket"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/headrace/headrace/graph/auth"
	"github.com/headrace/headrace/graph/generated"
	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/graph/transport"
	"github.com/headrace/headrace/internal/eventstore"
)

const secret = "hunter2"

// Wherever code can panic on the way of an operation: on each transport the client gets a masked error, the log the whole
// one, and the process goes on.
func TestPanicsAnywhereAreMasked(t *testing.T) {
	t.Parallel()
	blow := func() { panic(secret) }
	for place, hook := range map[string]func(*executor.Executor){
		"around operations": func(e *executor.Executor) {
			e.AroundOperations(func(context.Context, graphql.OperationHandler) graphql.ResponseHandler { blow(); return nil })
		},
		"response handler": func(e *executor.Executor) {
			e.AroundOperations(func(context.Context, graphql.OperationHandler) graphql.ResponseHandler {
				return func(context.Context) *graphql.Response { blow(); return nil }
			})
		},
		"around responses": func(e *executor.Executor) {
			e.AroundResponses(func(context.Context, graphql.ResponseHandler) *graphql.Response { blow(); return nil })
		},
		"around root fields": func(e *executor.Executor) {
			e.AroundRootFields(func(context.Context, graphql.RootResolver) graphql.Marshaler { blow(); return nil })
		},
		"marshaller": func(e *executor.Executor) {
			e.AroundRootFields(func(context.Context, graphql.RootResolver) graphql.Marshaler {
				return graphql.WriterFunc(func(io.Writer) { blow() })
			})
		},
		"around fields": func(e *executor.Executor) {
			e.AroundFields(func(context.Context, graphql.Resolver) (any, error) { blow(); return nil, nil })
		},
		"parameters": func(e *executor.Executor) { e.Use(blowing{}) },
	} {
		log := &lockedBuffer{}
		server := httptest.NewServer(panicking(t, log, hook))
		for name, ask := range map[string]func(*testing.T, string, string) string{"POST": askByPost, "GET": askByGet, "events": askByEvents, "WebSocket": askBySocket} {
			text := ask(t, server.URL, `{ event(position: 1) { id } }`)
			if !strings.Contains(text, codeInternal) || strings.Contains(text, secret) || strings.Contains(text, ".go") {
				t.Errorf("%s by %s is answered by %q", place, name, text)
			}
			if logged := log.take(); !strings.Contains(logged, secret) || strings.Count(logged, "GraphQL request failed") != 1 {
				t.Errorf("%s by %s is logged as %q", place, name, logged)
			}
			if after := askByPost(t, server.URL, `{ `); !strings.Contains(after, "GRAPHQL_PARSE_FAILED") && place != "parameters" && place != "around responses" {
				t.Errorf("after %s by %s the server answers %q", place, name, after)
			}
			log.take()
		}
		server.Close()
	}
}

// A subscription's own goroutine is not the executor's: nothing there catches a panic but ours.
func TestPanicsOfSubscriptionsEndThem(t *testing.T) {
	t.Parallel()
	log := &lockedBuffer{}
	server := httptest.NewServer(panicking(t, log, func(*executor.Executor) {}))
	defer server.Close()
	for name, ask := range map[string]func(*testing.T, string, string) string{"events": askByEvents, "WebSocket": askBySocket} {
		text := ask(t, server.URL, `subscription { events { id } }`)
		if !strings.Contains(text, codeInternal) || strings.Contains(text, secret) {
			t.Errorf("%s is answered by %q", name, text)
		}
		if logged := log.take(); !strings.Contains(logged, secret) || !strings.Contains(logged, "goroutine") {
			t.Errorf("%s is logged as %q", name, logged)
		}
	}
}

// panicking is a handler with a hook, whose subscription panics after its beginning.
func panicking(t *testing.T, log io.Writer, hook func(*executor.Executor)) http.Handler {
	t.Helper()
	h, err := NewHandler(&Resolver{}, Config{Logger: slog.New(slog.NewTextHandler(log, nil)), Login: auth.Off})
	if err != nil {
		t.Fatal(err)
	}
	root := newRoot(&Resolver{}, h.cfg)
	e := h.newExecutor(generated.NewExecutableSchema(generated.Config{Resolvers: subscriptionsPanic{root}}))
	hook(e)
	h.graphql = transport.New(e, transport.Config{Recover: h.present.recovered, Login: h.cfg.Login})
	return h
}

type subscriptionsPanic struct{ *root }

func (r subscriptionsPanic) Subscription() generated.SubscriptionResolver {
	return panickingEvents{subscriptionRoot(r), r.root}
}

type panickingEvents struct {
	generated.SubscriptionResolver
	root *root
}

func (r panickingEvents) Events(ctx context.Context, _ *int64, _ *eventstore.Token, _ *string, _ []string) (<-chan *model.Event, error) {
	return stream(ctx, r.root, eventKind, func(func(*model.Event, eventstore.Mark) bool) error { panic(secret) }), nil
}

type blowing struct{}

func (blowing) ExtensionName() string                   { return "Blowing" }
func (blowing) Validate(graphql.ExecutableSchema) error { return nil }
func (blowing) MutateOperationParameters(context.Context, *graphql.RawParams) *gqlerror.Error {
	panic(secret)
}

func asked(t *testing.T, r *http.Request) string {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func newAsk(t *testing.T, method, target, body, accept string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", accept)
	return r
}

func askByPost(t *testing.T, server, document string) string {
	return asked(t, newAsk(t, http.MethodPost, server+graphqlPath, `{"query": "`+document+`"}`, "application/json"))
}

func askByGet(t *testing.T, server, document string) string {
	return asked(t, newAsk(t, http.MethodGet, server+graphqlPath+"?query="+url.QueryEscape(document), "", "application/json"))
}

func askByEvents(t *testing.T, server, document string) string {
	return asked(t, newAsk(t, http.MethodPost, server+graphqlPath, `{"query": "`+document+`"}`, "text/event-stream"))
}

// askBySocket is all that comes for one operation, until it has ended.
func askBySocket(t *testing.T, server, document string) string {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, server+graphqlPath, &websocket.DialOptions{Subprotocols: []string{"graphql-transport-ws"}}) //nolint:bodyclose // there is none
	if err != nil {
		return err.Error()
	}
	defer conn.CloseNow()
	for _, message := range []string{`{"type": "connection_init"}`, `{"type": "subscribe", "id": "1", "payload": {"query": "` + document + `"}}`} {
		if err := conn.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			return err.Error()
		}
	}
	var all strings.Builder
	for {
		_, text, err := conn.Read(ctx)
		if err != nil {
			return all.String() + err.Error()
		}
		all.Write(text)
		if strings.Contains(string(text), `"complete"`) || strings.Contains(string(text), `"error"`) {
			return all.String()
		}
	}
}

// lockedBuffer gathers what a logger writes.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// take returns what was written since it was called last.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.text.Reset()
	return b.text.String()
}
