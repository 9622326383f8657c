package graph_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/graph/auth"
	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/commands/checkout"
	"github.com/headrace/headrace/internal/commands/fulfilment"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/commands/user"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/activityview"
	"github.com/headrace/headrace/internal/queries/cartview"
	"github.com/headrace/headrace/internal/queries/fulfilmentview"
	"github.com/headrace/headrace/internal/queries/orderview"
	"github.com/headrace/headrace/internal/queries/userview"
)

// patience is the deadline that all waiting in tests shares. It is far more than anything takes on a busy machine.
const patience = 2 * time.Minute

// bundle is the whole program behind a real HTTP server.
type bundle struct {
	t       *testing.T
	pool    *pgxpool.Pool
	store   *eventstore.Store
	tail    *queries.Tail
	handler *graph.Handler
	url     string
	asked   *statements
	log     *logged
	stop    func() // stops what keeps the read models up to date
}

// parts are what few tests have otherwise than the program.
type parts struct {
	store eventstore.Config
	users func(*commands.Decider[user.Command, user.Event, user.State]) // changes the decider
}

func setup(t *testing.T, cfg graph.Config) *bundle {
	t.Helper()
	return setupWith(t, cfg, parts{})
}

func setupWith(t *testing.T, cfg graph.Config, with parts) *bundle {
	t.Helper()
	ctx := t.Context()
	asked, log := &statements{}, &logged{}
	pool := tracedPool(t, asked)
	cfg.Logger = slogTo(log)
	if cfg.Login == nil {
		cfg.Login = auth.Off
	}
	// Without a word of the test nobody is cut off by a machine that stands still for seconds, nor for not reading meanwhile.
	cfg.WaitDefault = cmp.Or(cfg.WaitDefault, model.MaxWait)
	cfg.KeepAlive = cmp.Or(cfg.KeepAlive, time.Hour)
	registry, err := eventstore.NewRegistry(slices.Concat(cart.Events(), order.Events(), fulfilment.Events(), user.Events())...)
	must(t, err)
	store, err := eventstore.Open(ctx, pool, registry, with.store)
	must(t, err)
	var views []queries.Projection
	for _, make := range []func(*eventstore.Registry) (queries.Projection, error){
		cartview.View().Projection, orderview.View().Projection, userview.View().Projection, activityview.Projection, fulfilmentview.View().Projection,
	} {
		view, err := make(registry)
		must(t, err)
		views = append(views, view)
	}
	progress := queries.NewProgress(pool, store, queries.ProgressConfig{})
	tail := queries.NewTail(store, queries.TailConfig{})
	feed := queries.NewFeed(store, tail, progress, views...)
	broker := outbox.NewLocal(outbox.LocalConfig{})
	users := user.Decider()
	if with.users != nil {
		with.users(&users)
	}
	orders := commands.NewHandler(store, order.Decider(), commands.Config{})

	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var work sync.WaitGroup
	begin := func(run func(context.Context) error) { work.Go(func() { _ = run(running) }) }
	begin(outbox.NewRelay(store, broker, outbox.RelayConfig{}).Run)
	begin(tail.Run)
	begin(feed.Run)
	for _, view := range views {
		begin(func(ctx context.Context) error {
			return progress.Follow(ctx, view, func(ctx context.Context, p queries.Projection) error {
				consumer := outbox.NewConsumer(pool, store, broker, outbox.Subscription{
					Name: p.Checkpoint(), Types: p.Types, Apply: p.Apply,
					OnFailure: outbox.OnFailure(p.OnFailure), Forget: p.Forget,
					Committed: func(at eventstore.Token) { progress.Advance(p.Checkpoint(), at) },
					Parked: func(now outbox.ParkedStreams) {
						told := queries.ParkedStreams{Changes: now.Changes, Moved: now.Moved}
						for _, s := range now.Streams {
							told.Streams = append(told.Streams, queries.ParkedStream(s))
						}
						progress.Parked(p.Checkpoint(), 0, told)
					},
				}, outbox.ConsumerConfig{Logger: slog.New(slog.DiscardHandler)})
				defer progress.OnWait(p.Checkpoint(), consumer.Flush)()
				return consumer.Run(ctx)
			})
		})
	}
	policy := outbox.NewConsumer(pool, store, broker, outbox.Subscription{
		Name: checkout.Name, Types: []string{cart.CheckedOut{}.EventType()},
		React: func(ctx context.Context, e eventstore.Event) error {
			payload, err := registry.Decode(e)
			if err != nil {
				return err
			}
			stream, cmd, call := checkout.Place(e, payload.(cart.CheckedOut))
			_, err = orders.Handle(ctx, stream, cmd, call)
			return err
		},
	}, outbox.ConsumerConfig{})
	begin(policy.Run)

	handler, err := graph.NewHandler(&graph.Resolver{
		Store: store, Progress: progress, Feed: feed, Tail: tail,
		CartCommands:  commands.NewHandler(store, cart.Decider(), commands.Config{}),
		OrderCommands: orders,
		UserCommands:  commands.NewHandler(store, users, commands.Config{}),
		Carts:         cartview.NewReader(queries.NewReads(pool), queries.PageConfig{}),
		Orders:        orderview.NewReader(queries.NewReads(pool), queries.PageConfig{}),
		Users:         userview.NewReader(queries.NewReads(pool), queries.PageConfig{}),
		Fulfilments:   fulfilmentview.NewReader(queries.NewReads(pool)),
		Activities:    activityview.NewReader(queries.NewReads(pool), queries.PageConfig{}),
	}, cfg)
	must(t, err)
	server := httptest.NewServer(handler)
	stop := sync.OnceFunc(func() { cancel(); work.Wait() })
	t.Cleanup(func() {
		end, done := context.WithTimeout(context.Background(), patience)
		defer done()
		must(t, handler.Drain(end))
		server.Close()
		stop()
		must(t, store.Close(end))
	})
	return &bundle{t: t, pool: pool, store: store, tail: tail, handler: handler, url: server.URL, asked: asked, log: log, stop: stop}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answer is a response over HTTP.
type answer struct {
	status int
	header http.Header
	Data   map[string]any `json:"data"`
	Errors []struct {
		Message    string         `json:"message"`
		Path       []any          `json:"path"`
		Extensions map[string]any `json:"extensions"`
	} `json:"errors"`
	Extensions map[string]any `json:"extensions"`
	raw        string
}

func (b *bundle) post(document string, variables map[string]any, headers ...string) answer {
	b.t.Helper()
	body, err := json.Marshal(map[string]any{"query": document, "variables": variables})
	must(b.t, err)
	request, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url+"/graphql", bytes.NewReader(body))
	must(b.t, err)
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	return b.do(request)
}

func (b *bundle) do(request *http.Request) answer {
	b.t.Helper()
	response, err := http.DefaultClient.Do(request)
	must(b.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(b.t, err)
	a := answer{status: response.StatusCode, header: response.Header, raw: string(text)}
	if len(text) > 0 && text[0] == '{' {
		must(b.t, json.Unmarshal(text, &a))
	}
	return a
}

// at walks objects by names and lists by numbers.
func (a answer) at(t *testing.T, path ...any) any {
	t.Helper()
	var v any = a.Data
	for _, step := range path {
		switch step := step.(type) {
		case string:
			object, ok := v.(map[string]any)
			if !ok {
				t.Fatalf("no object at %v in %s", step, a.raw)
			}
			v = object[step]
		case int:
			list, ok := v.([]any)
			if !ok || step >= len(list) {
				t.Fatalf("no element %d in %s", step, a.raw)
			}
			v = list[step]
		}
	}
	return v
}

func (a answer) code() any {
	if len(a.Errors) == 0 {
		return nil
	}
	return a.Errors[0].Extensions["code"]
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Fatalf("%s is %v, want %v", what, got, want)
	}
}
