package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/graph/auth"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgdev"
)

// Config is all that the server can be told. Each field is a flag and an environment variable.
type Config struct {
	Database
	Listen            string        `name:"listen" env:"LISTEN_ADDR" placeholder:"HOST:PORT" help:"Address to listen on. Default :8080; in development the next free port if that is taken."`
	MetricsListen     string        `name:"metrics" env:"METRICS_ADDR" placeholder:"HOST:PORT" help:"Address to serve Prometheus metrics on, at /metrics. Unset: in development on the address of everything else, in production nowhere."`
	DrainTimeout      time.Duration `name:"drain-timeout" env:"DRAIN_TIMEOUT" default:"20s" help:"How long requests, and messages in hand, may go on after SIGTERM."`
	LeaseTTL          time.Duration `name:"lease-ttl" env:"LEASE_TTL" default:"5s" help:"How long the projections of a killed process wait for another to take them over."`
	ParkedMax         int           `name:"parked-streams-max" env:"PARKED_STREAMS_MAX" default:"1000" help:"How many streams of a projection or policy may be parked; one more, and it halts."`
	CancelUnpaidAfter time.Duration `name:"cancel-unpaid-after" env:"CANCEL_UNPAID_AFTER" default:"30m" help:"How long after its placing an unpaid order is cancelled."`
	Origins           []string      `name:"allowed-origins" env:"ALLOWED_ORIGINS" placeholder:"URL" help:"Other origins, such as https://shop.example.org, whose pages may send requests. Comma-separated."`
	LogRequests       bool          `name:"log-requests" env:"LOG_REQUESTS" help:"Log a line for each GraphQL operation at info: its name, duration, codes of errors, actor. Else they are at debug."`
	Freshness         string        `name:"freshness" env:"FRESHNESS" default:"asked" help:"Whether answers from read models say how fresh they are: asked, or always."`
	PublishSchema     bool          `name:"publish-schema" env:"PUBLISH_SCHEMA" help:"Serve the GraphQL schema on /schema.graphql in production too."`

	Fulfilment `embed:""`

	Standbys `embed:"" group:"Read replicas:"`
	Brokers  `embed:"" group:"Between processes:"`
	Inbox    `embed:"" group:"Between processes:"`
	Auth     `embed:"" group:"Who is let in:"`
	Switches `embed:"" group:"Switches:"`
	Limits   `embed:"" group:"Limits on requests:"`
}

// Database is what every command needs that works on the database.
type Database struct {
	URL            string `name:"database-url" env:"DATABASE_URL" placeholder:"URL" help:"Postgres to use: postgres://user:password@host:port/database. Unset in development: the private one of this checkout."`
	DirectURL      string `name:"database-direct-url" env:"DATABASE_DIRECT_URL" placeholder:"URL" help:"The same database without a pooler in transaction mode in between, for what needs a session: migrations, and hearing of other processes' commits. Unset: DATABASE_URL."`
	MaxConnections int    `name:"database-max-connections" env:"DATABASE_MAX_CONNECTIONS" default:"32" help:"Connections to hold at most; at least 8. Half of them are for reading views."`
	Environment    string `name:"env" env:"HEADRACE_ENV" placeholder:"ENV" help:"development or production. Default production, but for the command dev."`
	LogLevel       string `name:"log-level" env:"LOG_LEVEL" default:"info" help:"debug, info, warn or error."`
}

const (
	development = "development"
	production  = "production"
)

// Validate is called by kong when all flags and variables are read. Its errors name the variable and the fix.
func (c *Config) Validate() error {
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			return fmt.Errorf("LISTEN_ADDR (--listen) is %q: give host:port, such as 127.0.0.1:8080 or :8080", c.Listen)
		}
	}
	if c.MetricsListen != "" {
		if _, _, err := net.SplitHostPort(c.MetricsListen); err != nil {
			return fmt.Errorf("METRICS_ADDR (--metrics) is %q: give host:port, such as 127.0.0.1:9090 or :9090", c.MetricsListen)
		}
	}
	if c.DrainTimeout <= 0 {
		return fmt.Errorf("DRAIN_TIMEOUT (--drain-timeout) is %v: give a time above zero, such as 20s", c.DrainTimeout)
	}
	if c.LeaseTTL < time.Second {
		return fmt.Errorf("LEASE_TTL (--lease-ttl) is %v: give a second or more, such as 5s", c.LeaseTTL)
	}
	if c.ParkedMax < 1 {
		return fmt.Errorf("PARKED_STREAMS_MAX (--parked-streams-max) is %d: give at least 1, such as 1000", c.ParkedMax)
	}
	if c.CancelUnpaidAfter <= 0 {
		return fmt.Errorf("CANCEL_UNPAID_AFTER (--cancel-unpaid-after) is %v: give a time above zero, such as 30m", c.CancelUnpaidAfter)
	}
	if c.Freshness != "" && c.Freshness != "asked" && c.Freshness != "always" {
		return fmt.Errorf("FRESHNESS (--freshness) is %q: give asked or always", c.Freshness)
	}
	for _, origin := range c.Origins {
		if u, err := url.Parse(origin); err != nil || u.Host == "" || u.Scheme == "" || (u.Path != "" && u.Path != "/") {
			return fmt.Errorf("ALLOWED_ORIGINS (--allowed-origins) holds %q: give origins such as https://shop.example.org", origin)
		}
	}
	return errors.Join(c.Brokers.Validate(), c.Inbox.validate(c.shared()), c.Fulfilment.validate(c.Environment, c.shared()),
		c.Auth.Validate(), c.Limits.Validate(), c.Standbys.Validate(), c.Database.Validate())
}

// Validate is called by kong when all flags and variables are read. What DATABASE_URL holds is never printed: it may
// hold a password.
func (d *Database) Validate() error {
	switch d.Environment {
	case "", development, production:
	default:
		return fmt.Errorf("HEADRACE_ENV (--env) is %q: give development or production", d.Environment)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(d.LogLevel)); d.LogLevel != "" && err != nil {
		return fmt.Errorf("LOG_LEVEL (--log-level) is %q: give debug, info, warn or error", d.LogLevel)
	}
	if d.MaxConnections < 8 {
		return fmt.Errorf("DATABASE_MAX_CONNECTIONS (--database-max-connections) is %d: give 8 or more", d.MaxConnections)
	}
	return errors.Join(validURL("DATABASE_URL (--database-url)", d.URL), validURL("DATABASE_DIRECT_URL (--database-direct-url)", d.DirectURL))
}

func validURL(variable, address string) error {
	if address == "" {
		return nil
	}
	if _, err := pgxpool.ParseConfig(address); err != nil {
		return errors.New(variable + " cannot be read: give postgres://user:password@host:port/database, " +
			"with special characters in the password percent-encoded")
	}
	return nil
}

// directly is the database for what needs a session of its own.
func (d *Database) directly() *Database {
	direct := *d
	if d.DirectURL != "" {
		direct.URL = d.DirectURL
	}
	return &direct
}

func (d *Database) development() bool { return d.Environment == development }

// logger writes for people in development and for machines in production.
func (d *Database) logger() *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(d.LogLevel)) // Validate has refused what it cannot read; the zero value is info
	options := &slog.HandlerOptions{Level: level}
	if d.development() {
		return slog.New(slog.NewTextHandler(os.Stderr, options))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, options))
}

// outside is what the GraphQL handler is told. The verifier, which has to run, is nil when nobody is authenticated.
func (c *Config) outside(ctx context.Context, log *slog.Logger) (graph.Config, *auth.Verifier, error) {
	config := graph.Config{
		Development:   c.development(),
		PublishSchema: c.PublishSchema,
		LogRequests:   c.LogRequests,
		Origins:       c.Origins,
		Freshness:     c.Freshness == "always",
		Logger:        log,
	}
	c.apply(&config)
	verifier, err := c.guard(ctx, &config, log)
	return config, verifier, err
}

// connection is an open pool, and the private Postgres under it in development.
type connection struct {
	pool    *pgxpool.Pool
	where   string         // for people: without a password
	cluster *pgdev.Cluster // nil: DATABASE_URL
}

// close gives the connections back and stops the private Postgres, if this process started it.
func (c *connection) close() error {
	c.pool.Close()
	if c.cluster == nil {
		return nil
	}
	return c.cluster.Close()
}

// connect opens the database: that of DATABASE_URL, or else, in development, the private one, which it starts or
// attaches to.
func (d *Database) connect(ctx context.Context, log *slog.Logger) (*connection, error) {
	c := &connection{}
	address := d.URL
	if address == "" {
		if !d.development() {
			return nil, &exitError{exitUsage, errors.New("DATABASE_URL (--database-url) is not set: give postgres://user:password@host:port/database, " +
				"or set HEADRACE_ENV=development for the private Postgres of this checkout")}
		}
		var err error
		if c.cluster, err = openPrivate(ctx, log); err != nil {
			return nil, err
		}
		if address, err = c.cluster.Database(ctx, "headrace"); err != nil {
			return nil, errors.Join(err, c.cluster.Close())
		}
	}
	pool, err := d.openPool(ctx, address, log)
	if err != nil {
		if c.cluster != nil {
			err = errors.Join(err, c.cluster.Close())
		}
		return nil, err
	}
	c.pool, c.where = pool, address
	if c.cluster == nil {
		config := pool.Config().ConnConfig
		c.where = fmt.Sprintf("postgres://%s@%s/%s", config.User, net.JoinHostPort(config.Host, fmt.Sprint(config.Port)), config.Database)
	}
	return c, nil
}

// connect leaves some of the connections to the pool for reads, which wire opens.
func (c *Config) connect(ctx context.Context, log *slog.Logger) (*connection, error) {
	d := c.Database
	d.MaxConnections -= connectionsForReads(d.MaxConnections)
	return d.connect(ctx, log)
}

func (d *Database) openPool(ctx context.Context, address string, log *slog.Logger) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	d.tune(config)
	fitted, err := eventstore.FitPooler(ctx, config.ConnConfig)
	if err != nil {
		return nil, &exitError{exitUnreachable, fmt.Errorf("the database of DATABASE_URL (--database-url) cannot be reached: %w", err)}
	}
	if fitted {
		log.Info("a pooler that keeps no prepared statements stands before the database: statements are parsed whenever they are sent")
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("opening the pool of connections: %w", err)
	}
	return pool, nil
}

// tune sets what the URL does not say.
func (d *Database) tune(config *pgxpool.Config) {
	config.MaxConns = int32(d.MaxConnections)
	config.PrepareConn = alive
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 10 * time.Second
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "headrace"
	}
}

// openPrivate starts the private Postgres of this checkout or attaches to it.
func openPrivate(ctx context.Context, log *slog.Logger) (*pgdev.Cluster, error) {
	dir, err := privateDir()
	if err != nil {
		return nil, err
	}
	return pgdev.Open(ctx, pgdev.Config{Dir: dir, TCP: true, Log: func(message string) { log.Info(message) }})
}

// privateDir is the folder of the private Postgres: one for each checkout, whichever of its folders this runs in.
func privateDir() (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := here; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return pgdev.CheckoutDir(dir)
		}
		if dir == filepath.Dir(dir) {
			return pgdev.CheckoutDir(here)
		}
	}
}
