package pgtest

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
)

func count(t *testing.T, url, sql string, args ...any) int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var n int
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEachTestHasADatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	urls := make(chan string, 8)
	t.Run("clones", func(t *testing.T) {
		for range cap(urls) {
			t.Run("clone", func(t *testing.T) {
				t.Parallel()
				pool := Pool(t)
				if _, err := pool.Exec(t.Context(), "insert into claims values ('k', 's')"); err != nil {
					t.Errorf("another test's row is here: %v", err)
				}
				if again := URL(t); again != URL(t) || count(t, again, "select count(*) from claims") != 1 {
					t.Error("URL and Pool give different databases")
				}
				urls <- URL(t)
			})
		}
	})
	close(urls)
	seen := map[string]bool{}
	for url := range urls {
		if seen[url] {
			t.Errorf("two tests share %s", url)
		}
		seen[url] = true
		if conn, err := pgx.Connect(t.Context(), url); err == nil {
			conn.Close(t.Context())
			t.Errorf("%s outlived its test", url)
		}
	}
}

func TestConnectionsCarryTheTestsName(t *testing.T) {
	t.Parallel()
	var name string
	if err := Pool(t).QueryRow(t.Context(), "select current_setting('application_name')").Scan(&name); err != nil {
		t.Fatal(err)
	}
	if name != t.Name() {
		t.Errorf("application_name is %q", name)
	}
}

func TestTheTemplateIsMadeOnce(t *testing.T) {
	t.Parallel()
	s, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	const oidSQL = "select oid::bigint from pg_database where datname = $1"
	before := count(t, s.adminURL, oidSQL, s.template)
	name, err := makeTemplate(t.Context(), s.adminURL)
	if err != nil {
		t.Fatal(err)
	}
	if name != s.template || count(t, s.adminURL, oidSQL, name) != before {
		t.Error("the template was made again")
	}
}

func TestClusterSurvivesACrash(t *testing.T) {
	t.Parallel()
	cluster := Cluster(t)
	count(t, cluster.URL(), "with made as (select set_config('synchronous_commit', 'on', false)) select 1 from made")
	conn, err := pgx.Connect(t.Context(), cluster.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "create table kept as select 7 as n"); err != nil {
		t.Fatal(err)
	}
	for _, crash := range []func() error{
		func() error { return cluster.Stop("immediate") },
		cluster.Kill,
		func() error { return cluster.Stop("fast") },
	} {
		if err := crash(); err != nil {
			t.Fatal(err)
		}
		if err := cluster.Start(); err != nil {
			t.Fatal(err)
		}
		if n := count(t, cluster.URL(), "select n from kept"); n != 7 {
			t.Errorf("after the crash the row is %d", n)
		}
	}
	if count(t, cluster.URL(), "select count(*) from pg_settings where name = 'fsync' and setting = 'on'") != 1 {
		t.Error("a cluster for crash tests must sync")
	}
}

func TestPGTestURLWins(t *testing.T) {
	t.Parallel()
	if want := os.Getenv("PGTEST_URL"); want != "" {
		s, err := shared()
		if err != nil || s.adminURL != want {
			t.Errorf("PGTEST_URL is set and not used: %v", err)
		}
		return
	}
	cluster := Cluster(t)
	name, err := makeTemplate(t.Context(), cluster.URL())
	if err != nil {
		t.Fatal(err)
	}
	if count(t, cluster.URL(), "select count(*) from pg_database where datname = $1 and not datallowconn", name) != 1 {
		t.Error("no closed template on the server that was named")
	}
}
