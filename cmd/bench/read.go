package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/graph/auth"
	"github.com/headrace/headrace/graph/generated"
	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/cartview"
)

// What the reading section asks for: a field that costs nothing, and a list of 20 objects with five fields.
const (
	oneFieldQuery = `{ __typename }`
	listQuery     = `query Carts { carts(first: 20) { nodes { id ownerId status version updatedAt } } }`
	listLength    = 20

	readConnections = 16
)

const fillCartsSQL = `insert into cart
(id, owner_id, status, currency, items, total, order_id, version, position, opened_at, updated_at)
select 'cart-' || gen_random_uuid(), 'user-' || gen_random_uuid(), 'OPEN', 'EUR', '[]', 0, null, 1 + n % 40, n,
now() - n * interval '1 second', now() from generate_series(1, 1000) n`

// readSection measures queries beside what net/http does with nothing in it, and beside what a handler without GraphQL
// does that encodes the same rows by encoding/json. All are servers in this process with the same settings.
func (b *bench) readSection(ctx context.Context) error {
	db, err := b.database(ctx)
	if err != nil {
		return err
	}
	defer db.drop()
	if _, err := db.pool.Exec(ctx, fillCartsSQL); err != nil {
		return fmt.Errorf("making carts: %w", err)
	}
	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(800)) // as the server has it
	}
	log, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	r := &reading{
		bench: b, reader: cartview.NewReader(queries.NewReads(db.pool), queries.PageConfig{}), log: slog.New(slog.NewJSONHandler(log, nil)),
		spent: map[string][]time.Duration{},
	}
	defer r.stop()
	if r.verifier, r.token, err = issue(ctx); err != nil {
		return err
	}
	cases, err := r.cases(ctx)
	if err != nil {
		return err
	}
	if err := b.report(ctx, fmt.Sprintf("Queries over HTTP, %d connections", readConnections), "requests/s", cases); err != nil {
		return err
	}
	r.printSpent(os.Stdout, cases)
	return nil
}

// printSpent shows what a request costs in processor time, load and server together. On a machine with other work that is
// steadier than a rate; the ratio is what the ratio of the rates would be if nothing else ran.
func (r *reading) printSpent(w io.Writer, cases []benchCase) {
	medians := map[string]time.Duration{}
	fmt.Fprint(w, "\n| case | processor time a request | ratio |\n| --- | ---: | ---: |\n")
	for _, c := range cases {
		slices.Sort(r.spent[c.name])
		medians[c.name] = r.spent[c.name][len(r.spent[c.name])/2]
		ratio := ""
		if base := medians[c.base]; base > 0 {
			ratio = fmt.Sprintf("%.2f × %s", float64(base)/float64(medians[c.name]), c.base)
		}
		fmt.Fprintf(w, "| %s | %.1f µs | %s |\n", c.name, float64(medians[c.name])/float64(time.Microsecond), ratio)
	}
}

// reading has the servers of the section.
type reading struct {
	bench    *bench
	reader   *cartview.Reader
	log      *slog.Logger
	verifier *auth.Verifier
	token    string
	servers  []*http.Server
	spent    map[string][]time.Duration // processor time a request in each round, by case
}

func (r *reading) stop() {
	for _, s := range r.servers {
		_ = s.Close()
	}
}

func (r *reading) cases(ctx context.Context) ([]benchCase, error) {
	page, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	memory := func(context.Context) (queries.Slice[cartview.Cart], error) { return page, nil }
	const bare, memoryJSON, tableJSON = "bare net/http, constant body", "encoding/json, 20 rows from memory", "encoding/json, 20 rows from Postgres"
	var cases []benchCase
	for _, c := range []struct {
		name    string
		handler func() (http.Handler, error)
		query   string
		target  float64
		base    string
	}{
		{bare, constant, oneFieldQuery, 0, ""},
		{"GraphQL, one field", r.graphql(memory), oneFieldQuery, 0.65, bare},
		{memoryJSON, plain(memory), listQuery, 0, ""},
		{"GraphQL, the same rows from memory", r.graphql(memory), listQuery, 0.6, memoryJSON},
		{tableJSON, plain(r.list), listQuery, 0, ""},
		{"GraphQL, the same rows from Postgres", r.graphql(r.list), listQuery, 0.6, tableJSON},
	} {
		handler, err := c.handler()
		if err != nil {
			return nil, err
		}
		address, err := r.serve(ctx, handler)
		if err != nil {
			return nil, err
		}
		cases = append(cases, benchCase{name: c.name, run: r.load(c.name, address, c.query), target: c.target, base: c.base})
	}
	return cases, nil
}

func (r *reading) list(ctx context.Context) (queries.Slice[cartview.Cart], error) {
	first := listLength
	return r.reader.List(ctx, cartview.Filter{}, cartview.OpenedAtDesc, queries.PageArgs{First: &first})
}

// serve starts a server with the settings of cmd/api.
func (r *reading) serve(ctx context.Context, handler http.Handler) (address string, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("listening: %w", err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	r.servers = append(r.servers, server)
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String(), nil
}

func (r *reading) load(name, address, query string) func(context.Context) (sample, error) {
	body := mustJSON(map[string]any{"query": query})
	return func(ctx context.Context) (sample, error) {
		clients := make([]*client, readConnections)
		for i := range clients {
			c, err := dial(ctx, address)
			if err != nil {
				return sample{}, err
			}
			defer c.conn.Close()
			c.token = r.token
			clients[i] = c
		}
		var requests atomic.Int64
		before := processorTime()
		result, err := run(ctx, len(clients), 1, r.bench.config.Duration, func(_ context.Context, w, _ int) error {
			_, err := clients[w].post(body)
			requests.Add(1)
			return err
		})
		if n := requests.Load(); n > 0 {
			r.spent[name] = append(r.spent[name], (processorTime()-before)/time.Duration(n))
		}
		return result, err
	}
}

// issue returns a token of a member of staff, and a verifier that accepts it by the issuer's public key, as a server does.
func issue(ctx context.Context) (*auth.Verifier, string, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, "", err
	}
	set, err := os.CreateTemp("", "headrace-bench-keys")
	if err != nil {
		return nil, "", err
	}
	defer os.Remove(set.Name())
	_, err = fmt.Fprintf(set, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"bench","use":"sig","x":%q}]}`,
		base64.RawURLEncoding.EncodeToString(public))
	if err := errors.Join(err, set.Close()); err != nil {
		return nil, "", err
	}
	const issuer, audience = "https://issuer.example.org/", "bench"
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": issuer, "aud": audience, "sub": "user-bench", "roles": []string{identity.Staff}, "exp": time.Now().Add(24 * time.Hour).Unix(),
	})
	token.Header["kid"] = "bench"
	text, err := token.SignedString(private)
	if err != nil {
		return nil, "", err
	}
	verifier, err := auth.NewVerifier(ctx, auth.Config{KeysFile: set.Name(), Issuer: issuer, Audience: audience})
	return verifier, text, err
}

// processorTime is what this process has used of the processors.
func processorTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func constant() (http.Handler, error) {
	answer := []byte(`{"data":{"__typename":"Query"}}`)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}), nil
}

type source = func(context.Context) (queries.Slice[cartview.Cart], error)

// plain is how one would answer without GraphQL: the request and the answer are structs, and encoding/json does the rest.
func plain(rows source) func() (http.Handler, error) {
	type cart struct {
		ID        string          `json:"id"`
		OwnerID   string          `json:"ownerId"`
		Status    cartview.Status `json:"status"`
		Version   int64           `json:"version"`
		UpdatedAt time.Time       `json:"updatedAt"`
	}
	return func() (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var request struct {
				Query string `json:"query"`
			}
			if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			page, err := rows(r.Context())
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			var answer struct {
				Data struct {
					Carts struct {
						Nodes []cart `json:"nodes"`
					} `json:"carts"`
				} `json:"data"`
			}
			nodes := make([]cart, len(page.Rows))
			for i, c := range page.Rows {
				nodes[i] = cart{c.ID, c.OwnerID, c.Status, c.Version, c.UpdatedAt.UTC()}
			}
			answer.Data.Carts.Nodes = nodes
			body, err := json.Marshal(answer)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body)
		}), nil
	}
}

// graphql is the server's whole handler with authentication, limits and the log of requests, over resolvers that answer
// from rows.
func (r *reading) graphql(rows source) func() (http.Handler, error) {
	return func() (http.Handler, error) {
		handler, err := graph.NewHandlerOf(&rowsRoot{rows: rows}, graph.Config{
			Logger: r.log, LogRequests: true, Login: r.verifier.Login,
		})
		if err != nil {
			return nil, err
		}
		return handler, nil
	}
}

// rowsRoot resolves lists of carts, and nothing else.
type rowsRoot struct {
	generated.ResolverRoot
	rows source
}

func (r *rowsRoot) Query() generated.QueryResolver { return &rowsQuery{rows: r.rows} }

type rowsQuery struct {
	generated.QueryResolver
	rows source
}

func (r *rowsQuery) Carts(
	ctx context.Context, _ *cartview.Filter, _ cartview.OrderBy, _ *int, _ *string, _ *int, _ *string,
	_ *eventstore.Token, _ *time.Duration, _ *model.OnTimeout,
) (*model.CartConnection, error) {
	page, err := r.rows(ctx)
	if err != nil {
		return nil, err
	}
	return model.NewConnection(page, func(context.Context) (int64, error) { return 0, errors.New("not counted here") }), nil
}
