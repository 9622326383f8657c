package pgdev

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// databaseExistsSQL asks whether there is a database of the name $1.
const databaseExistsSQL = `select exists (select from pg_database where datname = $1)`

// errAgain says that a start met something that passes: the rest of a former server, or a port that was just taken.
var errAgain = errors.New("not yet")

// start makes the server run, or attaches to it.
func (c *Cluster) start(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		select {
		case <-c.process.done: // it ended by itself
			if err := c.process.dismiss(); err != nil {
				return err
			}
			c.process = nil
		default:
			return nil
		}
	}
	return retry(ctx, c.attempt)
}

// retry repeats an attempt while it meets what passes, until patience is used up.
func retry(ctx context.Context, attempt func(context.Context) error) error {
	deadline := time.Now().Add(patience)
	for {
		err := attempt(ctx)
		if err == nil || !errors.Is(err, errAgain) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("gave up after %v: %w", patience, err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *Cluster) attempt(ctx context.Context) error {
	if c.lock == nil {
		lock, err := tryLock(c.home)
		if err != nil {
			return err
		}
		c.lock = lock
	}
	if c.lock == nil {
		return c.attach(ctx)
	}
	if _, err := os.Stat(c.data()); errors.Is(err, os.ErrNotExist) {
		if err := c.initialise(ctx); err != nil {
			return err
		}
	}
	if err := c.matchVersion(ctx); err != nil {
		return err
	}
	if err := c.endOrphan(); err != nil {
		return err
	}
	if err := c.choosePort(); err != nil {
		return err
	}
	return c.launch(ctx)
}

// attach uses the server of the process that has the lock.
func (c *Cluster) attach(ctx context.Context) error {
	port, err := c.rememberedPort()
	if err != nil {
		return fmt.Errorf("%w: another process is setting it up", errAgain)
	}
	c.port = port
	if err := c.ping(ctx); err != nil {
		return fmt.Errorf("%w: the server of another process does not answer: %w", errAgain, err)
	}
	return nil
}

// initialise makes the cluster aside and moves it into place, so that one that was not finished is never started.
func (c *Cluster) initialise(ctx context.Context) error {
	c.config.Log("making a Postgres cluster in " + c.home)
	fresh := c.data() + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := c.makePrivate(fresh); err != nil {
		return err
	}
	if c.config.Make != nil {
		if err := c.config.Make(ctx, c, fresh); err != nil {
			return err
		}
		return os.Rename(fresh, c.data())
	}
	password := []byte(rand.Text() + "\n")
	if err := os.WriteFile(filepath.Join(c.home, "password"), password, 0o600); err != nil {
		return err
	}
	handed := filepath.Join(c.sockets, "password")
	if err := os.WriteFile(handed, password, 0o600); err != nil {
		return err
	}
	defer os.Remove(handed)
	if err := c.account.own(handed); err != nil {
		return err
	}
	args := []string{
		"--pgdata=" + fresh, "--username=postgres", "--encoding=UTF8", "--locale=C",
		"--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile=" + handed,
	}
	if c.config.Dir == "" {
		args = append(args, "--no-sync")
	}
	if err := c.Run(ctx, "initdb", args...); err != nil {
		return err
	}
	return os.Rename(fresh, c.data())
}

// command runs one of the server's programs as the server's user, in a process group of its own and without the
// caller's PG… variables.
func (c *Cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.binaries.Dir, name), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = c.account.attributes()
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC", "PATH=" + os.Getenv("PATH")}
	return cmd
}

// matchVersion changes to the programs of the version that made the cluster.
func (c *Cluster) matchVersion(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(c.data(), "PG_VERSION"))
	if err != nil {
		return err
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("the cluster's version: %w", err)
	}
	if major == c.binaries.Major {
		return nil
	}
	c.binaries, err = find(ctx, candidates(ctx), major)
	return err
}

// endOrphan ends a server whose owner is gone; where the owner's death reached it, it is ending already. A lock file
// whose process is another program by now is disarmed but kept: it also leads Postgres to shared memory that backends
// of the former server may still use.
func (c *Cluster) endOrphan() error {
	pid := readPID(c.data())
	if pid == 0 || syscall.Kill(pid, 0) != nil {
		return nil
	}
	if isServer(pid, c.data()) {
		if err := syscall.Kill(pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		return fmt.Errorf("%w: the former server (process %d) is still ending", errAgain, pid)
	}
	return disarm(filepath.Join(c.data(), "postmaster.pid"))
}

// readPID reads which process runs the cluster; 0: none.
func readPID(data string) int {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return pid
}

// noProcess is beyond what any system gives to a process.
const noProcess = "999999999"

// disarm puts a process that does not exist in the place of the one that the lock file names.
func disarm(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(text), "\n")
	return os.WriteFile(file, []byte(noProcess+"\n"+rest), 0o600) // an existing file keeps its owner
}

func (c *Cluster) launch(ctx context.Context) error {
	// No server runs: what lies in the socket's folder is of a former one, and may name a process that lives as another.
	leftovers, err := filepath.Glob(filepath.Join(c.sockets, ".s.PGSQL.*"))
	if err != nil {
		return err
	}
	for _, file := range leftovers {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	log, err := os.OpenFile(filepath.Join(c.home, "log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// The server must outlive the context of the call that starts it.
	cmd := c.command(context.WithoutCancel(ctx), "postgres", c.arguments()...)
	cmd.Stdout, cmd.Stderr = log, log
	onDeath, remove := syscall.SIGINT, ""
	if c.config.Dir == "" {
		onDeath, remove = syscall.SIGQUIT, c.home
	}
	p, err := spawn(cmd, onDeath, remove)
	if err != nil {
		return fmt.Errorf("starting postgres: %w", err)
	}
	if err := c.awaitReady(ctx, p); err != nil {
		select {
		case <-p.done:
		default:
			_ = syscall.Kill(p.pid, syscall.SIGQUIT) // it may end in this moment
			<-p.done
		}
		return errors.Join(err, p.dismiss())
	}
	c.process = p
	return nil
}

func (c *Cluster) arguments() []string {
	settings := map[string]string{
		"port":                    strconv.Itoa(c.port),
		"unix_socket_directories": c.sockets,
		"listen_addresses":        "",
		"timezone":                "UTC",
		"logging_collector":       "off",
	}
	if c.config.TCP {
		settings["listen_addresses"] = "127.0.0.1"
	}
	maps.Copy(settings, c.config.Settings)
	args := []string{"-D", c.data()}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// awaitReady returns when the server answers, or has ended, or the context has. A server that recovers from a crash
// may take as long as it needs.
func (c *Cluster) awaitReady(ctx context.Context, p *process) error {
	for {
		err := c.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-p.done:
			return c.explain(p.err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// explain tells from the server's own words why it ended.
func (c *Cluster) explain(exit error) error {
	text, err := os.ReadFile(filepath.Join(c.home, "log"))
	if err != nil {
		return err
	}
	said := strings.TrimSpace(string(text[max(0, len(text)-2000):]))
	for _, passing := range []string{"shared memory block", "lock file", "Address already in use", "could not create any"} {
		if strings.Contains(said, passing) {
			return fmt.Errorf("%w: postgres said: %s", errAgain, said)
		}
	}
	return fmt.Errorf("postgres ended (%w) and said: %s", exit, said)
}

func (c *Cluster) ping(ctx context.Context) error {
	config, err := pgx.ParseConfig(fmt.Sprintf("host='%s' port=%d user=postgres dbname=postgres sslmode=disable", c.sockets, c.port))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// ignoreExit keeps the errors of waiting and drops those that only tell how the process ended.
func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// socketPort names the socket of a server without TCP; it has its folder for itself.
const socketPort = 5432

// choosePort takes the port that the folder remembers, or the first that is free from a number that differs from
// checkout to checkout.
func (c *Cluster) choosePort() error {
	c.port = socketPort
	if c.config.TCP {
		wanted, err := c.rememberedPort()
		if err != nil {
			wanted = 15432 + int(crc32.ChecksumIEEE([]byte(c.home))%1000)
		}
		c.port, err = freePort(wanted)
		if err != nil {
			return err
		}
		if c.port != wanted {
			c.config.Log(fmt.Sprintf("port %d is taken by another program; Postgres listens on %d", wanted, c.port))
		}
	}
	return os.WriteFile(filepath.Join(c.home, "port"), []byte(strconv.Itoa(c.port)), 0o600)
}

func (c *Cluster) rememberedPort() (int, error) {
	text, err := os.ReadFile(filepath.Join(c.home, "port"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(text))
}

// freePort is the first of a hundred ports from this one on to which nobody listens.
func freePort(from int) (int, error) {
	var err error
	for port := from; port < from+100; port++ {
		var listener net.Listener
		listener, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("no free port for Postgres between %d and %d: %w", from, from+99, err)
}
