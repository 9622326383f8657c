package graph_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/pgtest"
)

// statements records what GraphQL operations ask of Postgres themselves: the relay, the consumers and the appender ask
// on their own behalf, and are left out.
type statements struct {
	mu    sync.Mutex
	sql   []string
	apart []string // outside of any operation
	held  *held
}

// held is a statement whose answer waits until the test goes on.
type held struct {
	text    string
	left    int // statements with this text that pass before
	reached chan struct{}
	proceed chan struct{}
}

type heldKey struct{}

// hold lets the nth statement with this text wait when it has its answer, from now on. The test waits for reached, and
// closes proceed.
func (s *statements) hold(text string, n int) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = &held{text: text, left: n, reached: make(chan struct{}), proceed: make(chan struct{})}
	return s.held
}

// due is the hold on a statement, if there is one.
func (s *statements) due(sql string) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held
	if h == nil || !strings.Contains(sql, h.text) {
		return nil
	}
	if h.left--; h.left > 0 {
		return nil
	}
	s.held = nil
	return h
}

func (s *statements) record(ctx context.Context, sql string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if graphql.HasOperationContext(ctx) {
		s.sql = append(s.sql, sql)
	} else {
		s.apart = append(s.apart, sql)
	}
}

// count is how many statements with this text were asked outside of any operation.
func (s *statements) count(text string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sql := range s.apart {
		if strings.Contains(sql, text) {
			n++
		}
	}
	return n
}

// take returns what was asked since it was called last.
func (s *statements) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := slices.Clone(s.sql)
	s.sql = nil
	return taken
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	s.record(ctx, data.SQL)
	if h := s.due(data.SQL); h != nil {
		return context.WithValue(ctx, heldKey{}, h)
	}
	return ctx
}

func (s *statements) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	if h, ok := ctx.Value(heldKey{}).(*held); ok {
		close(h.reached)
		<-h.proceed
	}
}

func (s *statements) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (s *statements) TraceBatchQuery(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchQueryData) {
	s.record(ctx, data.SQL)
}

func (s *statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// tracedPool is the test's pool with a witness.
func tracedPool(t *testing.T, witness *statements) *pgxpool.Pool {
	t.Helper()
	cfg := pgtest.Pool(t).Config()
	cfg.ConnConfig.Tracer = witness
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	must(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func slogTo(log *logged) *slog.Logger { return slog.New(slog.NewTextHandler(log, nil)) }

// logged gathers what a handler writes to its log.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
