package eventstore_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

// pooled opens a pool on the test's database through a PgBouncer in transaction mode whose clients share two connections.
func pooled(t *testing.T) (*pgxpool.Pool, *pgtest.Pooler) {
	t.Helper()
	pooler := pgtest.StartPooler(t, pgtest.URL(t), 2)
	config, err := pgxpool.ParseConfig(pooler.URL)
	if err != nil {
		t.Fatal(err)
	}
	if fitted, err := eventstore.FitPooler(t.Context(), config.ConnConfig); err != nil || !fitted {
		t.Fatalf("the pooler was not noticed: %v", err)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool, pooler
}

// sessions checks that nothing was left behind in the connections that the pooler's clients share.
func checkSessions(t *testing.T, pooler *pgtest.Pooler) {
	t.Helper()
	var all []*pgx.Conn
	for range 2 { // each holds one of the two
		conn, err := pgx.Connect(t.Context(), pooler.URL+"&default_query_exec_mode=exec")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		all = append(all, conn)
		if _, err := conn.Exec(t.Context(), "begin"); err != nil {
			t.Fatal(err)
		}
	}
	for _, conn := range all {
		var settings, prepared string
		err := conn.QueryRow(t.Context(), `select
			coalesce((select string_agg(name, ' ') from pg_settings where source = 'session' and name <> 'application_name'), ''),
			coalesce((select string_agg(name, ' ') from pg_prepared_statements), '')`).Scan(&settings, &prepared)
		if err != nil {
			t.Fatal(err)
		}
		// PgBouncer itself sets what its clients report.
		for _, name := range []string{"client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings"} {
			settings = strings.ReplaceAll(settings, name, "")
		}
		if strings.TrimSpace(settings) != "" || prepared != "" {
			t.Errorf("left behind: settings %q, statements %q", settings, prepared)
		}
	}
}

func TestBehindAPoolerTheLogIsWhatAModelSays(t *testing.T) {
	t.Parallel()
	pool, pooler := pooled(t)
	// Others append too, so that the connections go around.
	other := open(t, pool, eventstore.Config{})
	stop := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if _, err := other.AppendIn(context.Background(), func(tx pgx.Tx) (eventstore.Request, error) {
				_, err := tx.Exec(context.Background(), `select set_config('work_mem', '5MB', true)`)
				return eventstore.Request{
					Stream: "other-1", Expected: eventstore.Any, CommandID: eventstore.CommandID{Actor: "bob", ID: "once"},
				}, err
			}); err != nil {
				ended <- err
				return
			}
		}
	}()
	checkAgainstModel(t, open(t, pool, eventstore.Config{}))
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	checkSessions(t, pooler)
}

func TestBehindAPoolerManyAppendersAndAReaderThatFollows(t *testing.T) {
	t.Parallel()
	pool, pooler := pooled(t)
	appendAndFollow(t, open(t, pool, eventstore.Config{}))
	checkSessions(t, pooler)
}

func TestAPoolerThatIsKilledLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	pool, pooler := pooled(t)
	survives(t, pool, func() {
		pooler.Kill()
		pooler.Start()
	})
	checkSessions(t, pooler)
}

func TestAppendsInATransactionBehindAPooler(t *testing.T) {
	t.Parallel()
	pool, pooler := pooled(t)
	store := open(t, pool, eventstore.Config{})
	add := func(expected eventstore.ExpectedVersion, key string) error {
		_, err := store.AppendIn(t.Context(), func(tx pgx.Tx) (eventstore.Request, error) {
			_, err := tx.Exec(t.Context(), `insert into claims values ($1, 'note-1')`, key)
			return eventstore.Request{Stream: "note-1", Expected: expected, Events: notes(key)}, err
		})
		return err
	}
	var conflict *eventstore.ConflictError
	if err := add(eventstore.NoStream, "first"); err != nil {
		t.Fatal(err)
	}
	if err := add(eventstore.NoStream, "refused"); !errors.As(err, &conflict) {
		t.Fatalf("got %v", err)
	}
	var keys string
	if err := pool.QueryRow(t.Context(), `select string_agg(key, ' ') from claims`).Scan(&keys); err != nil || keys != "first" {
		t.Errorf("the claims are %q, %v", keys, err)
	}
	checkSessions(t, pooler)
}

// The caller's request to cancel goes through the pooler, so that what nobody waits for does not go on.
func TestAStatementThatIsGivenUpBehindAPoolerEnds(t *testing.T) {
	t.Parallel()
	pool, pooler := pooled(t)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := pool.Exec(ctx, `select pg_sleep(600)`)
			ended <- err
		}()
		sleeping(t, 1)
		cancel()
		if err := <-ended; err == nil {
			t.Fatal("it outlived its caller")
		}
		sleeping(t, 0)
	}
	checkSessions(t, pooler)
}

// sleeping waits until so many statements sleep in the test's database.
func sleeping(t *testing.T, want int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	deadline := time.Now().Add(patience)
	for n := -1; n != want; {
		if err := conn.QueryRow(t.Context(), `select count(*) from pg_stat_activity
			where datname = current_database() and state = 'active' and query like 'select pg_sleep(%'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d statements sleep, not %d", n, want)
		}
	}
}

func TestNamesAreKeptWithoutAPooler(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig(pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	if fitted, err := eventstore.FitPooler(t.Context(), config); err != nil || fitted ||
		config.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		t.Errorf("fitted %v (%v) for %v", fitted, err, config.DefaultQueryExecMode)
	}
}

// Whoever opens the pool without FitPooler is told what is wrong, and writes nothing by mistake.
func TestWithoutFitPoolerTheErrorSaysWhatToDo(t *testing.T) {
	t.Parallel()
	pooler := pgtest.StartPooler(t, pgtest.URL(t), 1)
	pool, err := pgxpool.New(t.Context(), pooler.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	for range 2 { // on the one connection the second finds the first one's statements there
		store := open(t, pool, eventstore.Config{})
		_, err = store.Append(t.Context(), eventstore.Request{Stream: "note-1", Expected: eventstore.Any, Events: notes("a")})
	}
	if err == nil || !strings.Contains(err.Error(), "FitPooler") {
		t.Errorf("the error is %v", err)
	}
}

// What it costs that statements are parsed and planned for each batch: one event with and without a command id, from one
// caller for each processor and from 32.
func BenchmarkStatements(b *testing.B) {
	for _, mode := range []string{"cache_statement", "cache_describe"} {
		pool, err := pgxpool.New(b.Context(), pgtest.URL(b)+"&default_query_exec_mode="+mode)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(pool.Close)
		store := open(b, pool, eventstore.Config{})
		for _, actor := range []string{"", "ada"} {
			for _, callers := range []int{1, 32} {
				b.Run(fmt.Sprintf("%s/idempotent=%t/callers=%d", mode, actor != "", callers), func(b *testing.B) {
					b.SetParallelism(callers)
					b.RunParallel(func(p *testing.PB) {
						stream := "note-" + rand.Text()
						for p.Next() {
							r := eventstore.Request{Stream: stream, Expected: eventstore.Any, Events: notes("a")}
							if actor != "" {
								r.CommandID = eventstore.CommandID{Actor: actor, ID: rand.Text()}
							}
							if _, err := store.Append(b.Context(), r); err != nil {
								b.Error(err)
								return
							}
						}
					})
				})
			}
		}
	}
}
