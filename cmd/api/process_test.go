package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/migrations"
)

// asProgram makes this test's binary be the program itself.
const asProgram = "HEADRACE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		ctx, stop := untilSignal()
		var code int
		if os.Getenv(asProgram) == asNextRelease {
			code = runNextRelease(ctx)
		} else {
			code = run(ctx, os.Args[1:], os.Stdout, os.Stderr)
		}
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// program is a process of its own that serves.
type program struct {
	cmd *exec.Cmd
	url string
	log *logged
	eof chan struct{} // closed when the log has ended

	metrics string // where they are, with METRICS_ADDR
}

// logged is a log that can be read while it is written.
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

// startProgram starts `api serve` on a free port and returns when it is ready.
func startProgram(t *testing.T, database string, environment ...string) *program {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), os.Args[0], "serve")
	cmd.Env = append(os.Environ(), asProgram+"=1", "DATABASE_URL="+database, "LISTEN_ADDR=127.0.0.1:0", "HEADRACE_ENV=production", "AUTH=off")
	cmd.Env = append(cmd.Env, environment...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{cmd: cmd, log: &logged{}, eof: make(chan struct{})}
	t.Cleanup(func() { _ = p.end(syscall.SIGKILL) })
	all := io.TeeReader(stderr, p.log)
	lines := bufio.NewScanner(all)
	lines.Buffer(nil, 1<<20) // a line may hold the stack of a panic
	for lines.Scan() {
		var line struct{ Msg, GraphQL, URL string }
		_ = json.Unmarshal(lines.Bytes(), &line) // another's line is none of these
		if line.Msg == "serving metrics" {
			p.metrics = line.URL
		}
		if line.Msg == "serving" {
			p.url = strings.TrimSuffix(line.GraphQL, "/graphql")
			break
		}
	}
	go func() {
		defer close(p.eof)
		_, _ = io.Copy(io.Discard, all) // however long its lines are: a log that nobody takes would hold the program up
	}()
	if p.url == "" {
		t.Fatalf("the server did not start: %s", p.log)
	}
	until(t, "the server to be ready", func() bool { code, _ := get(t, p.url+"/readyz"); return code == http.StatusOK })
	return p
}

// end sends the signal and waits for the process; it returns how that ended.
func (p *program) end(signal os.Signal) error {
	_ = p.cmd.Process.Signal(signal)
	<-p.eof
	return p.cmd.Wait()
}

func TestAKilledServerLosesNothingItAcknowledged(t *testing.T) {
	t.Parallel()
	database := pgtest.URL(t)
	p := startProgram(t, database, "LEASE_TTL=1s")
	const shoppers = 8
	acknowledged := make([]int, shoppers) // the version that each shopper's cart was said to have
	carts, last := make([]string, shoppers), make([]string, shoppers)
	var group, warm sync.WaitGroup
	for i := range shoppers {
		var opened struct{ OpenCart payload }
		if problem := post(t.Context(), p.url, openCart, map[string]any{"owner": "ada"}, &opened); problem != "" {
			t.Fatal(problem)
		}
		carts[i] = opened.OpenCart.Receipt.Stream
		warm.Add(1)
		group.Go(func() {
			ready := sync.OnceFunc(warm.Done)
			defer ready()
			for {
				var added struct{ AddItem payload }
				document := `mutation($input: AddItemInput!) { addItem(input: $input) { receipt { version } userErrors { code } } }`
				last[i] = post(context.Background(), p.url, document, map[string]any{"input": item(carts[i], 1)}, &added)
				if last[i] != "" || added.AddItem.Receipt == nil {
					return // the server is gone
				}
				acknowledged[i] = added.AddItem.Receipt.Version
				if acknowledged[i] > 20 {
					ready()
				}
			}
		})
	}
	warm.Wait()
	_ = p.end(syscall.SIGKILL)
	group.Wait()
	for i, version := range acknowledged {
		if version <= 20 {
			t.Fatalf("shopper %d came to version %d before the server was killed: %s", i, version, last[i])
		}
	}

	p = startProgram(t, database, "LEASE_TTL=1s")
	for i, cart := range carts {
		until(t, "the view to catch up after the killed owner's lease", func() bool {
			var got struct{ Cart *struct{ Version int } }
			if problem := post(t.Context(), p.url, `query($id: ID!) { cart(id: $id) { version } }`, map[string]any{"id": cart}, &got); problem != "" {
				t.Fatal(problem)
			}
			return got.Cart != nil && got.Cart.Version >= acknowledged[i]
		})
	}
	var holes int
	err := pgtest.Pool(t).QueryRow(t.Context(), "select count(*) - coalesce(max(position), 0) from events").Scan(&holes)
	if err != nil || holes != 0 {
		t.Fatalf("positions and events differ by %d, %v", holes, err)
	}
}

func TestSIGTERMDrainsAndExitsWithZero(t *testing.T) {
	t.Parallel()
	p := startProgram(t, pgtest.URL(t))
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Fatalf("the server ended with %v: %s", err, p.log)
	}
}

// command runs one command line in this process and returns its exit code and output.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestServeRefusesADatabaseThatIsNotMigrated(t *testing.T) {
	t.Parallel()
	cluster := pgtest.Cluster(t)
	url, err := cluster.Database(t.Context(), "empty")
	if err != nil {
		t.Fatal(err)
	}
	code, _, stderr := command(t, "serve", "--auth", "off", "--database-url", url)
	if code != exitNotMigrated || !strings.Contains(stderr, "migrate up") {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if code, _, stderr = command(t, "migrate", "status", "--database-url", url); code != exitNotMigrated {
		t.Fatalf("status of an empty database: exit %d: %s", code, stderr)
	}
	if code, _, stderr = command(t, "migrate", "up", "--database-url", url); code != exitDone {
		t.Fatalf("up: exit %d: %s", code, stderr)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if pending, err := migrations.Pending(t.Context(), pool); err != nil || len(pending) != 0 {
		t.Fatalf("pending after up: %v, %v", pending, err)
	}
	if code, _, stderr = command(t, "migrate", "down", "--database-url", url); code != exitDone {
		t.Fatalf("down: exit %d: %s", code, stderr)
	}
	pending, err := migrations.Pending(t.Context(), pool)
	if err != nil || len(pending) != 1 || pending[0].Line != migrations.Application {
		t.Fatalf("down must take back the application's last alone; pending: %v, %v", pending, err)
	}
}

func TestProjectionsAreRebuiltFromTheCommandLine(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{})
	cart := s.open(t)
	s.add(t, cart, 3)
	url := pgtest.URL(t)
	code, stdout, stderr := command(t, "projections", "rebuild", "cart", "--switch", "--database-url", url)
	if code != exitDone {
		t.Fatalf("exit %d: %s %s", code, stdout, stderr)
	}
	after := s.add(t, cart, 1)
	if after.Cart == nil || after.Cart.Items[0].Quantity != 4 {
		t.Fatalf("the rebuilt view does not go on: %+v", after)
	}
	if code, stdout, _ = command(t, "projections", "list", "--database-url", url); code != exitDone || !strings.Contains(stdout, "cart_v1_2") ||
		!strings.Contains(stdout, "kept, a rollback's") {
		t.Fatalf("exit %d: %s", code, stdout)
	}
	if code, _, stderr = command(t, "projections", "rebuild", "nosuch", "--database-url", url); code == exitDone {
		t.Fatalf("rebuilt what does not exist: %s", stderr)
	}
}

func TestConfigurationErrorsNameTheVariableAndTheFix(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"serve", "--listen", "nowhere"}, []string{"LISTEN_ADDR", "host:port"}},
		{[]string{"serve", "--drain-timeout", "0s"}, []string{"DRAIN_TIMEOUT", "20s"}},
		{[]string{"serve", "--lease-ttl", "1ms"}, []string{"LEASE_TTL", "5s"}},
		{[]string{"serve", "--env", "staging"}, []string{"HEADRACE_ENV", "production"}},
		{[]string{"serve", "--log-level", "loud"}, []string{"LOG_LEVEL", "debug"}},
		{[]string{"serve", "--database-max-connections", "2"}, []string{"DATABASE_MAX_CONNECTIONS", "8"}},
		{[]string{"serve", "--freshness", "never"}, []string{"FRESHNESS", "always"}},
		{[]string{"serve", "--metrics", "9090"}, []string{"METRICS_ADDR", ":9090"}},
		{[]string{"serve", "--allowed-origins", "shop"}, []string{"ALLOWED_ORIGINS", "https://"}},
		{[]string{"serve", "--database-url", "postgres://u:se%cret@h:bad/d"}, []string{"DATABASE_URL", "percent-encoded"}},
		{[]string{"migrate", "up", "--database-direct-url", "postgres://u:se%cret@h:bad/d"}, []string{"DATABASE_DIRECT_URL", "percent-encoded"}},
		{[]string{"serve", "--database-replica-url", "postgres://u:se%cret@h:bad/d"}, []string{"DATABASE_REPLICA_URL", "percent-encoded"}},
		{[]string{"serve", "--database-replica-url", "postgres://h/d postgres://h2/d", "--replica-max-lag", "1ms"}, []string{"REPLICA_MAX_LAG", "5s"}},
		{[]string{"serve", "--auth", "basic"}, []string{"AUTH", "jwt", "off"}},
		{[]string{"serve"}, []string{"JWKS_URL", "JWKS_FILE", "JWT_ISSUER", "JWT_AUDIENCE", "AUTH=off"}},
		{[]string{"serve", "--jwks-url", "https://id.example.org/keys", "--jwt-issuer", "x"}, []string{"JWT_AUDIENCE", "AUTH=off"}},
		{[]string{"serve", "--jwks-url", "id.example.org"}, []string{"JWKS_URL", "https://"}},
		{[]string{"serve", "--jwks-url", "https://id.example.org/keys", "--jwks-file", "keys.json"}, []string{"JWKS_URL", "JWKS_FILE", "one of them"}},
		{[]string{"serve", "--jwt-leeway", "1h"}, []string{"JWT_LEEWAY", "30s"}},
		{[]string{"serve", "--rate-limit-address", "lots"}, []string{"rate-limit-address", "50:100"}},
		{[]string{"serve", "--trusted-proxies", "home"}, []string{"trusted-proxies"}},
		{[]string{"frobnicate"}, []string{"frobnicate"}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			code, _, stderr := command(t, c.args...)
			if code != exitUsage {
				t.Errorf("exit %d", code)
			}
			for _, want := range c.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q does not say %q", stderr, want)
				}
			}
			if strings.Contains(stderr, "se%cret") {
				t.Errorf("the password is printed: %s", stderr)
			}
		})
	}
}

func TestEveryCommandHasHelpAndFlagsHaveVariables(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"dev"},
		{"serve"},
		{"migrate", "up"},
		{"migrate", "down"},
		{"migrate", "status"},
		{"migrate", "create"},
		{"version"},
		{"projections", "list"},
		{"projections", "rebuild"},
		{"outbox", "dead", "list"},
	} {
		code, stdout, stderr := command(t, append(args, "--help")...)
		if code != exitDone || !strings.Contains(stdout, "Usage:") {
			t.Errorf("%v --help: exit %d: %s %s", args, code, stdout, stderr)
		}
	}
	_, help, _ := command(t, "serve", "--help")
	for _, variable := range []string{"DATABASE_URL", "LISTEN_ADDR", "HEADRACE_ENV", "DRAIN_TIMEOUT", "LEASE_TTL", "LOG_LEVEL"} {
		if !strings.Contains(help, "$"+variable) {
			t.Errorf("serve --help does not name %s", variable)
		}
	}
}

func TestVersionIsPrinted(t *testing.T) {
	t.Parallel()
	if code, stdout, _ := command(t, "version"); code != exitDone || !strings.HasPrefix(stdout, "headrace ") {
		t.Fatalf("exit %d: %s", code, stdout)
	}
}

func TestATakenPortIsSaid(t *testing.T) {
	t.Parallel()
	s := startServer(t, Config{})
	address := strings.TrimPrefix(s.url, "http://")
	code, _, stderr := command(t, "serve", "--auth", "off", "--database-url", pgtest.URL(t), "--listen", address)
	if code != exitAddressTaken || !strings.Contains(stderr, fmt.Sprintf("another program listens on %s", address)) {
		t.Fatalf("exit %d: %s", code, stderr)
	}
}
