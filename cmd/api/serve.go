package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"

	"github.com/headrace/headrace/migrations"
)

// defaultPort is listened on at all addresses when LISTEN_ADDR is not set.
const defaultPort = 8080

type serveCommand struct{ Config }

// Run serves until the context ends. It never migrates.
func (s *serveCommand) Run(ctx context.Context) error { return s.serve(ctx, newProjections) }

func (s *serveCommand) serve(ctx context.Context, all views) (err error) {
	if s.Environment == "" {
		s.Environment = production
	}
	if err := s.ready(authJWT); err != nil {
		return err
	}
	log := s.logger()
	c, err := s.connect(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	pending, err := migrations.Pending(ctx, c.pool)
	if err != nil {
		return err
	}
	if err := notMigrated(len(pending)); err != nil {
		return err
	}
	listener, err := listen(ctx, s.Listen, defaultPort, 0)
	if err != nil {
		return err
	}
	return s.start(ctx, c, all, listener, log)
}

type devCommand struct{ Config }

// Run brings the database up, migrates it and serves until the context ends. Then it drains the server first, and
// Postgres after that.
func (d *devCommand) Run(ctx context.Context) (err error) {
	if d.Environment == production {
		return &exitError{exitUsage, errors.New("HEADRACE_ENV (--env) is production, and dev is not for production: run `api serve`, or unset it")}
	}
	d.Environment = development
	if err := d.ready(authOff); err != nil {
		return err
	}
	log := d.logger()
	// Taken first: a port that another program has should be said before Postgres is started.
	listener, err := listen(ctx, d.Listen, defaultPort, 20)
	if err != nil {
		return err
	}
	if port := listener.Addr().(*net.TCPAddr).Port; d.Listen == "" && port != defaultPort {
		log.Warn("another program listens on the usual port", "usual", defaultPort, "using", port)
	}
	c, err := d.connect(ctx, log)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := migrations.Up(ctx, c.pool); err != nil {
		return errors.Join(err, listener.Close())
	}
	return d.start(ctx, c, newProjections, listener, log)
}

// gcPercent lets the heap grow ninefold between collections unless GOGC says otherwise: what lives is small, tens of
// megabytes, and what each request leaves behind is a lot. A mutation under load costs a third more at Go's default.
const gcPercent = 800

// start composes the server and runs it.
func (c *Config) start(ctx context.Context, database *connection, all views, listener net.Listener, log *slog.Logger) error {
	owner := ""
	if database.cluster != nil && !database.cluster.Attached() {
		// Nobody else works on this database, so leases that a killed process left behind need not run out.
		owner = development
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	metrics, err := c.listenForMetrics(ctx)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	a, err := wire(ctx, c, all, database.pool, owner, log)
	if err != nil {
		if metrics != nil {
			err = errors.Join(err, metrics.Close())
		}
		return errors.Join(err, listener.Close())
	}
	if metrics != nil {
		a.serveMetrics(metrics)
		log.Info("serving metrics", "url", "http://"+readable(metrics.Addr())+"/metrics")
	}
	url := "http://" + readable(listener.Addr())
	log.Info("serving", "graphql", url+"/graphql", "ready", url+"/readyz", "database", database.where, "env", c.Environment)
	if c.development() {
		log.Info("open GraphiQL in a browser", "url", url+"/")
	}
	defer c.reloadOnHangup(a, log)()
	return a.run(ctx, listener)
}

// reloadOnHangup reads the manifest of trusted documents anew at each SIGHUP until the returned function is called. Where
// there is no manifest the signal ends the program, as it always does.
func (c *Config) reloadOnHangup(a *app, log *slog.Logger) (stop func()) {
	if c.TrustedDocuments == "" {
		return func() {}
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			if err := a.graph.ReloadDocuments(); err != nil {
				log.Error("the trusted documents could not be read anew; those from before stay", "error", err)
				continue
			}
			log.Info("read the trusted documents anew", "manifest", c.TrustedDocuments)
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
	}
}

// readable is the address as a browser on this machine takes it.
func readable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// listen opens the address that was asked for. When none was, it is the usual port, or one of the next few that is
// free, if others are allowed.
func listen(ctx context.Context, address string, port, others int) (net.Listener, error) {
	asked := address != ""
	if !asked {
		address = ":" + strconv.Itoa(port)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return listener, nil
	case !errors.Is(err, syscall.EADDRINUSE):
		return nil, &exitError{exitUsage, fmt.Errorf("LISTEN_ADDR (--listen): %w", err)}
	case asked || others == 0:
		return nil, &exitError{exitAddressTaken, fmt.Errorf(
			"another program listens on %s: stop it, or give another LISTEN_ADDR (--listen), such as :8081", address)}
	}
	return listen(ctx, "", port+1, others-1)
}
