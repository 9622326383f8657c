package pgdev

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Config says what kind of cluster Open makes. The zero value is a throwaway with the durability of a real server.
type Config struct {
	// Dir is the cluster's folder; it outlives the process. Empty: a new temporary folder, which Remove removes, or the
	// guard when the process dies.
	Dir string
	// TCP lets the server listen on 127.0.0.1 too, with a password, at a port that the folder remembers. The default is
	// a Unix socket alone.
	TCP bool
	// Settings are settings of the server, such as "fsync": "off". They win over the package's own.
	Settings map[string]string
	// Make makes the data of a new cluster in place of initdb, such as by a base backup of another one, whose programs it
	// runs by c.Run. The folder data is there, is empty, and belongs to the server's user. Nil: initdb.
	Make func(ctx context.Context, c *Cluster, data string) error
	// Log hears what takes long or is surprising: a download, a new cluster, another port. Nil: nobody.
	Log func(message string)
}

// patience is how long a start waits for a server that another process starts or that is still ending.
var patience = 30 * time.Second

// Cluster is a private Postgres server. Its methods may be called concurrently.
type Cluster struct {
	config   Config
	binaries Binaries
	account  account
	home     string // the folder
	sockets  string // the folder of the Unix socket

	mu      sync.Mutex
	lock    *os.File // held: this process owns the folder
	port    int
	process *process // nil: stopped, or attached to another process's server
}

// Open starts the cluster of the folder, which it makes when there is none, or attaches to it when another process has
// it running. It waits up to 30 seconds for a server that is starting or ending. The error is a *NotFoundError when
// the machine has no Postgres.
func Open(ctx context.Context, config Config) (*Cluster, error) {
	if config.Log == nil {
		config.Log = func(string) {}
	}
	binaries, err := FindOrDownload(ctx, config.Log)
	if err != nil {
		return nil, err
	}
	as, err := serverAccount(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cluster{config: config, binaries: binaries, account: as, home: config.Dir}
	if err := c.prepareFolders(); err != nil {
		return nil, fmt.Errorf("preparing the folder of the private Postgres: %w", err)
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the private Postgres in %s: %w", c.home, err), c.abandon())
	}
	return c, nil
}

// URL is that of the server's own database postgres, for its superuser, over the Unix socket.
func (c *Cluster) URL() string { return c.databaseURL("postgres") }

// Dir is the cluster's folder.
func (c *Cluster) Dir() string { return c.home }

// BinDir is the folder of the server's programs, where its tools are as well.
func (c *Cluster) BinDir() string { return c.binaries.Dir }

// Run runs one of the server's programs, such as pg_dump, as the server's user and without the caller's PG… variables. The
// error holds what the program said.
func (c *Cluster) Run(ctx context.Context, name string, args ...string) error {
	if out, err := c.command(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Folder returns a folder of this name in the cluster's own, which the server's user may write to. It makes it when there
// is none.
func (c *Cluster) Folder(name string) (string, error) {
	dir := filepath.Join(c.home, name)
	if err := c.makePrivate(dir); err != nil {
		return "", fmt.Errorf("making the folder %s of the private Postgres: %w", name, err)
	}
	return dir, nil
}

// Attached says whether the server belongs to another process, with which it ends.
func (c *Cluster) Attached() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lock == nil
}

func (c *Cluster) databaseURL(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	query := url.Values{"host": {c.sockets}, "port": {strconv.Itoa(c.port)}, "sslmode": {"disable"}}
	return (&url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/" + name, RawQuery: query.Encode()}).String()
}

// Database makes the database when there is none of this name and returns its URL.
func (c *Cluster) Database(ctx context.Context, name string) (string, error) {
	conn, err := pgx.Connect(ctx, c.URL())
	if err != nil {
		return "", fmt.Errorf("making the database %s: %w", name, err)
	}
	defer conn.Close(ctx)
	var exists bool
	if err := conn.QueryRow(ctx, databaseExistsSQL, name).Scan(&exists); err != nil {
		return "", fmt.Errorf("looking for the database %s: %w", name, err)
	}
	if !exists {
		_, err := conn.Exec(ctx, "create database "+pgx.Identifier{name}.Sanitize())
		// Another process may have made it since.
		if err != nil && conn.QueryRow(ctx, databaseExistsSQL, name).Scan(&exists) == nil && !exists {
			return "", fmt.Errorf("making the database %s: %w", name, err)
		}
	}
	return c.databaseURL(name), nil
}

// Start starts the server again after Stop or Kill, and does nothing when it runs.
func (c *Cluster) Start() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if err := c.start(ctx); err != nil {
		return fmt.Errorf("starting the private Postgres in %s: %w", c.home, err)
	}
	return nil
}

// Stop ends the server and returns when it has ended. The mode is "fast", which disconnects clients and writes a
// checkpoint, or "immediate", which is a crash: the next start recovers from the write-ahead log. A server that belongs
// to another process is left alone, and one that is stopped stays so.
func (c *Cluster) Stop(mode string) error {
	switch mode {
	case "fast":
		return c.end(syscall.SIGINT)
	case "immediate":
		return c.end(syscall.SIGQUIT)
	}
	return fmt.Errorf("a private Postgres stops in mode fast or immediate, not %q", mode)
}

// Kill ends the server's main process with SIGKILL. Its other processes notice and end by themselves; Start waits for
// that.
func (c *Cluster) Kill() error { return c.end(syscall.SIGKILL) }

func (c *Cluster) end(signal syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return nil
	}
	p := c.process
	if err := syscall.Kill(p.pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stopping the private Postgres: %w", err)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		// A fast stop waits for its checkpoint; what was acknowledged is in the write-ahead log already.
		if err := syscall.Kill(p.pid, syscall.SIGQUIT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stopping the private Postgres: %w", err)
		}
		<-p.done
	}
	c.process = nil
	return p.dismiss()
}

// Close stops the server, when it is this process's own, and gives up the folder. A temporary folder is removed.
func (c *Cluster) Close() error {
	mode := "fast"
	if c.config.Dir == "" {
		mode = "immediate"
	}
	return errors.Join(c.Stop(mode), c.abandon())
}

// Remove stops the server, whatever it is doing, and removes the folder with all data. It refuses while the server
// belongs to another process.
func (c *Cluster) Remove() error {
	if c.Attached() {
		return inUseError(c.home)
	}
	if err := c.Stop("immediate"); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(c.sockets), os.RemoveAll(c.home), c.abandon())
}

func inUseError(dir string) error {
	return fmt.Errorf("the private Postgres in %s is in use by another process; stop that first", dir)
}

// Drop removes the folder of a cluster with all data, without starting it, so that it works for one that no longer
// starts. It refuses while a process uses it.
func Drop(ctx context.Context, dir string) error {
	as, err := serverAccount(ctx)
	if err != nil {
		return err
	}
	c := &Cluster{config: Config{Dir: dir, Log: func(string) {}}, account: as, home: dir}
	if err := c.prepareFolders(); err != nil {
		return fmt.Errorf("dropping the private Postgres: %w", err)
	}
	err = retry(ctx, func(context.Context) error {
		lock, err := tryLock(dir)
		if err != nil {
			return err
		}
		if lock == nil {
			return inUseError(dir)
		}
		if err := c.endOrphan(); err != nil {
			return errors.Join(err, lock.Close())
		}
		c.lock = lock
		return nil
	})
	if err != nil {
		return fmt.Errorf("dropping the private Postgres: %w", err)
	}
	return c.Remove()
}

// abandon gives up the folder.
func (c *Cluster) abandon() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lock == nil {
		return nil
	}
	var err error
	if c.config.Dir == "" {
		err = os.RemoveAll(c.home)
	}
	err = errors.Join(err, c.lock.Close())
	c.lock = nil
	return err
}

func (c *Cluster) data() string { return filepath.Join(c.home, "data") }
