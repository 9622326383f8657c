package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/pgdev"
)

// poolerPort names the socket of a Pooler, which listens on no port.
const poolerPort = "6432"

// poolerConfig is small, so that clients take each other's connections to Postgres at every turn.
const poolerConfig = `
[databases]
* = host=%[1]s port=%[2]d
[pgbouncer]
listen_addr =
listen_port = ` + poolerPort + `
unix_socket_dir = %[3]s
unix_socket_mode = 0777
auth_type = trust
auth_file = %[3]s/users.txt
pool_mode = transaction
default_pool_size = %[4]d
max_client_conn = 500
server_round_robin = 1
log_connections = 0
log_disconnections = 0
logfile = %[3]s/log
`

// Pooler is a PgBouncer in transaction mode for one test. It ends with the test's process in whatever way that ends. When
// PgBouncer ends by itself it is started again, as an operator's systemd does: versions before 1.20.1 may on a request to
// cancel a query ("server in bad state", its issue 822). Its methods belong to the test's own goroutine.
type Pooler struct {
	// URL leads through the pooler to the database that it was made for.
	URL string

	t       testing.TB
	dir     string
	program string
	running *exec.Cmd
	hold    io.Closer
}

// StartPooler starts a PgBouncer before the server of a database, with so many connections to each database and user,
// and returns when it answers. The test fails where there is no PgBouncer.
func StartPooler(t testing.TB, databaseURL string, connections int) *Pooler {
	t.Helper()
	program, err := findPooler()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	p := &Pooler{t: t, program: program}
	if err := p.configure(databaseURL, connections); err != nil {
		t.Fatalf("pgtest: preparing PgBouncer: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(p.dir) })
	p.Start()
	t.Cleanup(func() {
		if p.running != nil {
			p.Kill()
		}
	})
	return p
}

// Start starts it again after Kill.
func (p *Pooler) Start() {
	p.t.Helper()
	// The shell kills all of its process group as soon as its input ends, which it does when this process does. PgBouncer
	// refuses to run as root.
	p.running = exec.CommandContext(context.Background(), "/bin/sh", "-c",
		`(while :; do "$0" -q "$1"; sleep 0.1; done) & read -r _; kill -KILL 0`, p.program, filepath.Join(p.dir, "config.ini"))
	p.running.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		uid, gid, err := serversUser()
		if err != nil {
			p.t.Fatalf("pgtest: %v", err)
		}
		p.running.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	var err error
	if p.hold, err = p.running.StdinPipe(); err == nil {
		err = p.running.Start()
	}
	if err != nil {
		p.t.Fatalf("pgtest: starting PgBouncer: %v", err)
	}
	deadline := time.Now().Add(serverPatience)
	for {
		conn, err := pgx.Connect(context.Background(), p.URL)
		if err == nil {
			_ = conn.Close(context.Background())
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(p.dir, "log"))
			p.t.Fatalf("pgtest: PgBouncer does not answer: %v\n%s", err, log)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Kill ends it with SIGKILL, and with it all connections.
func (p *Pooler) Kill() {
	p.t.Helper()
	_ = p.hold.Close()
	_ = p.running.Wait()
	p.running = nil
	_ = os.Remove(filepath.Join(p.dir, ".s.PGSQL."+poolerPort))
}

func (p *Pooler) configure(databaseURL string, connections int) error {
	target, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return err
	}
	if p.dir, err = os.MkdirTemp("/var/tmp", "headrace-pooler-"); err != nil {
		return err
	}
	users := fmt.Sprintf("%q %q\n", target.User, target.Password)
	config := fmt.Sprintf(poolerConfig, target.Host, target.Port, p.dir, connections)
	for name, text := range map[string]string{"config.ini": config, "users.txt": users} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	query := url.Values{"host": {p.dir}, "port": {poolerPort}, "sslmode": {"disable"}}
	p.URL = (&url.URL{Scheme: "postgres", User: url.User(target.User), Path: "/" + target.Database, RawQuery: query.Encode()}).String()
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := serversUser()
	for _, name := range []string{"", "config.ini", "users.txt"} {
		err = errors.Join(err, os.Chown(filepath.Join(p.dir, name), int(uid), int(gid)))
	}
	return err
}

// serversUser is as whom servers run when the caller is root.
func serversUser() (uid, gid uint32, err error) {
	found, err := user.Lookup("postgres")
	if err != nil {
		return 0, 0, fmt.Errorf("looking up the user postgres: %w", err)
	}
	u, err := strconv.ParseUint(found.Uid, 10, 32)
	g, err2 := strconv.ParseUint(found.Gid, 10, 32)
	return uint32(u), uint32(g), errors.Join(err, err2)
}

func findPooler() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer", "/usr/local/bin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no PgBouncer was found, which the tests behind a pooler need: " +
		"apt-get install pgbouncer, brew install pgbouncer, or what your system calls it")
}

// InstallPooler installs PgBouncer when there is none and the caller may use a package manager. Where not, it does
// nothing, and the tests that need it say so.
func InstallPooler(ctx context.Context, out io.Writer) error {
	if _, err := findPooler(); err == nil {
		return nil
	}
	names := []string{"pgbouncer"}
	err := pgdev.Install(ctx, out, pgdev.Packages{Apt: names, Dnf: names, Apk: names, Brew: names})
	if errors.Is(err, pgdev.ErrNoPackageManager) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("installing PgBouncer: %w", err)
	}
	return nil
}
