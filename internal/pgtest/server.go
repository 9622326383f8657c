package pgtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/pgdev"
	"github.com/headrace/headrace/migrations"
)

// ownDatabase is the one that a Primary holds, and all that are made of it.
const ownDatabase = "app"

// serverPatience bounds each step that waits for a server. It is far more than any takes on a busy machine.
const serverPatience = 2 * time.Minute

// Server is a real Postgres for one test alone, with a migrated database: a Primary, a standby of one, or what was
// restored from one. Starting one takes a second or two of a processor, so that a test makes as few as it can. It ends
// and is removed at the test's cleanup, and with the test's process in whatever way that ends. It survives its own
// Stop and Kill, and not a crash of the machine: fsync is off.
//
// Methods fail the test where they cannot do what they say, so that they belong to its own goroutine.
type Server struct {
	*pgdev.Cluster
	t   testing.TB
	url string
}

// Primary starts a server with a migrated database, of which standbys and backups can be made. Settings are settings of
// Postgres.
func Primary(t testing.TB, settings map[string]string) *Server {
	t.Helper()
	// What is to be archived waits until there is a Backup that needs it.
	own := map[string]string{"archive_mode": "on"}
	maps.Copy(own, settings)
	s := startServer(t, pgdev.Config{Settings: own})
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	var err error
	if s.url, err = s.Database(ctx, ownDatabase); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	pool, err := pgxpool.New(ctx, s.url)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	defer pool.Close()
	if err := migrations.Up(ctx, pool); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return s
}

// Empty starts a server whose database has nothing in it, for Load.
func Empty(t testing.TB) *Server {
	t.Helper()
	s := startServer(t, pgdev.Config{})
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	var err error
	if s.url, err = s.Database(ctx, ownDatabase); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return s
}

// Standby makes a streaming standby by pg_basebackup and starts it; it answers reads when Standby returns. Settings are
// settings of Postgres, such as "recovery_min_apply_delay": "2s".
func (s *Server) Standby(settings map[string]string) *Server {
	s.t.Helper()
	standby := startServer(s.t, pgdev.Config{Settings: settings, Make: func(ctx context.Context, c *pgdev.Cluster, data string) error {
		return c.Run(ctx, "pg_basebackup", s.backupArguments(data, "--write-recovery-conf")...)
	}})
	return standby.inherit()
}

// Backup takes a base backup, for one Restore, and lets a Primary archive its write-ahead log from now on.
func (s *Server) Backup() (dir string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	archive, err := s.Folder("archive")
	if err != nil {
		s.t.Fatalf("pgtest: %v", err)
	}
	s.Exec(fmt.Sprintf(`alter system set archive_command = 'test ! -f %[1]s/%%f && cp %%p %[1]s/%%f'`, archive))
	s.Exec(`select pg_reload_conf()`)
	dir, err = s.Folder("backup")
	if err == nil {
		err = s.Run(ctx, "pg_basebackup", s.backupArguments(dir, "--write-recovery-conf")...)
	}
	if err != nil {
		s.t.Fatalf("pgtest: taking a base backup: %v", err)
	}
	return dir
}

// Restore starts another server from a base backup and the archive, up to a target such as
// {"recovery_target_name": "before"}, and returns when it takes writes, on a timeline of its own.
func (s *Server) Restore(backup string, target map[string]string) *Server {
	s.t.Helper()
	settings := map[string]string{
		"restore_command":        "cp " + filepath.Join(s.Dir(), "archive") + "/%f %p",
		"recovery_target_action": "promote",
	}
	maps.Copy(settings, target)
	restored := startServer(s.t, pgdev.Config{Settings: settings, Make: func(_ context.Context, _ *pgdev.Cluster, data string) error {
		if err := errors.Join(os.Remove(data), os.Rename(backup, data)); err != nil {
			return err
		}
		return os.Rename(filepath.Join(data, "standby.signal"), filepath.Join(data, "recovery.signal"))
	}})
	restored.inherit()
	restored.await("the end of its recovery", `select not pg_is_in_recovery()`)
	return restored
}

// Mark gives this moment a name, for a Restore up to it, and waits until the archive holds what leads there.
func (s *Server) Mark(name string) {
	s.t.Helper()
	s.Exec(`select pg_create_restore_point($1)`, name)
	var segment string
	s.QueryRow(`select pg_walfile_name(pg_switch_wal())`, &segment)
	s.await("the archive", `select coalesce(last_archived_wal, '') >= $1 from pg_stat_archiver`, segment)
}

// Promote makes a standby a primary, and returns when it takes writes.
func (s *Server) Promote() {
	s.t.Helper()
	var promoted bool
	s.QueryRow(`select pg_promote(true, 120)`, &promoted)
	if !promoted {
		s.t.Fatal("pgtest: the standby was not promoted")
	}
}

// CatchUp waits until a standby has replayed all that its primary has written by now.
func (s *Server) CatchUp(primary *Server) {
	s.t.Helper()
	var written string
	primary.QueryRow(`select pg_current_wal_lsn()::text`, &written)
	s.await("the standby", `select coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false)`, written)
}

// Detach lets a standby receive nothing any more: it is and remains as the primary is now, at the latest.
func (s *Server) Detach() {
	s.t.Helper()
	s.Exec(`alter system set primary_conninfo = ''`)
	s.Exec(`select pg_reload_conf()`)
	s.await("the end of the receiver", `select not exists (select from pg_stat_wal_receiver)`)
}

// Dump writes the database to a folder by pg_dump, for Load.
func (s *Server) Dump() (dir string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	dir, err := s.Folder("dump")
	if err != nil {
		s.t.Fatalf("pgtest: %v", err)
	}
	if err := s.Run(ctx, "pg_dump", "--format=directory", "--file="+dir, "--dbname="+s.url); err != nil {
		s.t.Fatalf("pgtest: %v", err)
	}
	return dir
}

// Load fills an Empty server with what another's Dump wrote.
func (s *Server) Load(dump string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	if err := s.Run(ctx, "pg_restore", "--exit-on-error", "--dbname="+s.url, dump); err != nil {
		s.t.Fatalf("pgtest: %v", err)
	}
}

// URL is that of the server's database, for its superuser.
func (s *Server) URL() string { return s.url }

// Pool returns a pool on the server's database, which is closed at the test's cleanup.
func (s *Server) Pool() *pgxpool.Pool {
	s.t.Helper()
	pool, err := pgxpool.New(context.Background(), s.url)
	if err != nil {
		s.t.Fatalf("pgtest: %v", err)
	}
	s.t.Cleanup(pool.Close)
	return pool
}

// Exec runs a statement, over a connection of its own.
func (s *Server) Exec(sql string, args ...any) {
	s.t.Helper()
	s.connected(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql, args...)
		return err
	})
}

// QueryRow runs a statement that returns one value, over a connection of its own.
func (s *Server) QueryRow(sql string, into any, args ...any) {
	s.t.Helper()
	s.connected(func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, sql, args...).Scan(into)
	})
}

func (s *Server) connected(f func(ctx context.Context, conn *pgx.Conn) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		s.t.Fatalf("pgtest: %v", err)
	}
	defer conn.Close(ctx)
	err = f(ctx, conn)
	var refused *pgconn.PgError
	for errors.As(err, &refused) && refused.Code == "40001" { // a standby gives up a query that stands in the way of replay
		err = f(ctx, conn)
	}
	if err != nil {
		s.t.Fatalf("pgtest: %v", err)
	}
}

// await asks again and again until the server says yes.
func (s *Server) await(what, sql string, args ...any) {
	s.t.Helper()
	s.connected(func(ctx context.Context, conn *pgx.Conn) error {
		for yes := false; ; time.Sleep(10 * time.Millisecond) {
			if err := conn.QueryRow(ctx, sql, args...).Scan(&yes); err != nil {
				return fmt.Errorf("waiting for %s: %w", what, err)
			}
			if yes {
				return nil
			}
		}
	})
}

func (s *Server) backupArguments(dir string, more ...string) []string {
	return append(more, "--dbname="+s.Cluster.URL(), "--pgdata="+dir, "--checkpoint=fast", "--no-sync", "--wal-method=stream")
}

// inherit names the database that came with the copy.
func (s *Server) inherit() *Server {
	s.t.Helper()
	var err error
	if s.url, err = s.Database(context.Background(), ownDatabase); err != nil {
		s.t.Fatalf("pgtest: %v", err)
	}
	return s
}

func startServer(t testing.TB, config pgdev.Config) *Server {
	t.Helper()
	settings := map[string]string{
		"fsync": "off", "max_connections": "100", "shared_buffers": "32MB",
		// A standby's receiver that lost its primary looks again soon.
		"wal_retrieve_retry_interval": "100ms",
	}
	maps.Copy(settings, config.Settings)
	config.Settings = settings
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	cluster, err := pgdev.Open(ctx, config)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := cluster.Remove(); err != nil {
			t.Errorf("pgtest: removing the test's own server: %v", err)
		}
	})
	return &Server{Cluster: cluster, t: t}
}

// Failover is a URL that leads to whichever of the servers takes writes.
func Failover(t testing.TB, servers ...*Server) string {
	t.Helper()
	var hosts, ports []string
	var address *url.URL
	for _, s := range servers {
		var err error
		if address, err = url.Parse(s.url); err != nil {
			t.Fatalf("pgtest: %v", err)
		}
		hosts, ports = append(hosts, address.Query().Get("host")), append(ports, address.Query().Get("port"))
	}
	query := address.Query()
	query.Set("host", strings.Join(hosts, ","))
	query.Set("port", strings.Join(ports, ","))
	query.Set("target_session_attrs", "read-write")
	address.RawQuery = query.Encode()
	return address.String()
}
