// Package pgtest gives each test a migrated Postgres database of its own.
//
// The migrations run once per server, into a template; a test gets a clone, which takes tens of milliseconds and is
// dropped at its cleanup. The server is the one that PGTEST_URL names, which `make test` starts once for all packages,
// or else a throwaway that the test binary starts itself and that ends with it. A test fails, and never skips, when
// there is no Postgres.
//
// The throwaway does not sync to disk (fsync is off), so it says nothing of durability: a test that crashes its server
// takes a Cluster of its own. All functions may be called by parallel tests.
package pgtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/pgdev"
)

// Pool returns a pool on the test's own database. The connections carry the test's name; the pool is closed and the
// database dropped at the test's cleanup. A second call in one test opens another pool on the same database.
func Pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(URL(t))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	// A test that counts or kills connections sees only those that it opened.
	config.ConnConfig.RuntimeParams["application_name"] = t.Name()[:min(len(t.Name()), 63)]
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// URL returns the URL of the test's own database, the same at each call in one test.
func URL(t testing.TB) string {
	t.Helper()
	entry, _ := databases.LoadOrStore(t.Name(), &database{})
	own := entry.(*database)
	own.once.Do(func() {
		t.Cleanup(func() { databases.Delete(t.Name()) })
		own.url, own.err = clone(t)
	})
	if own.err != nil {
		t.Fatalf("pgtest: %v", own.err)
	}
	return own.url
}

// Cluster starts a server for this test alone, with the durability of a real one, and removes it at the test's cleanup.
// It holds no database but postgres, which is empty.
func Cluster(t testing.TB) *pgdev.Cluster {
	t.Helper()
	cluster, err := pgdev.Open(context.Background(), pgdev.Config{
		Settings: map[string]string{"max_connections": "100", "shared_buffers": "32MB"},
	})
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := cluster.Remove(); err != nil {
			t.Errorf("pgtest: removing the test's own server: %v", err)
		}
	})
	return cluster
}

// StartServer starts a throwaway server that is tuned for tests; Close ends and removes it.
func StartServer(ctx context.Context, log func(string)) (*pgdev.Cluster, error) {
	return pgdev.Open(ctx, pgdev.Config{Log: log, Settings: map[string]string{
		"fsync":            "off",
		"full_page_writes": "off",
		// All packages' tests run beside each other, and a server of theirs may hold some thirty.
		"max_connections": "500",
		// Checkpoints of thousands of short-lived databases cost more than what they save.
		"checkpoint_timeout": "1h",
		"max_wal_size":       "8GB",
	}})
}

// database is what URL made for a test.
type database struct {
	once sync.Once
	url  string
	err  error
}

// What all tests of a binary share: the server with its template, and which test has which database.
var (
	databases sync.Map // test name: *database
	number    atomic.Int64
	shared    = sync.OnceValues(func() (server, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		return openServer(ctx)
	})
)

// server is a Postgres with a migrated template.
type server struct {
	adminURL string
	template string
}

func openServer(ctx context.Context) (server, error) {
	s := server{adminURL: os.Getenv("PGTEST_URL")}
	if s.adminURL == "" {
		// Nobody stops it: the guard ends and removes it when this process ends, however that is.
		cluster, err := StartServer(ctx, nil)
		if err != nil {
			return s, err
		}
		s.adminURL = cluster.URL()
	}
	var err error
	s.template, err = makeTemplate(ctx, s.adminURL)
	if err != nil {
		return s, fmt.Errorf("making the template for tests: %w", err)
	}
	return s, nil
}

// clone makes the test's database and has it dropped at cleanup.
func clone(t testing.TB) (string, error) {
	s, err := shared()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	name := fmt.Sprintf("test_%d_%d", os.Getpid(), number.Add(1))
	admin, err := pgx.Connect(ctx, s.adminURL)
	if err != nil {
		return "", fmt.Errorf("connecting to the test server: %w", err)
	}
	defer admin.Close(ctx)
	if err := copyTemplate(ctx, admin, name, s.template); err != nil {
		return "", err
	}
	t.Cleanup(func() {
		if err := drop(s.adminURL, name); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return withDatabase(s.adminURL, name)
}

func withDatabase(server, name string) (string, error) {
	parsed, err := url.Parse(server)
	if err != nil {
		return "", fmt.Errorf("PGTEST_URL is no URL: %w", err)
	}
	parsed.Path = "/" + name
	return parsed.String(), nil
}
