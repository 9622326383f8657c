package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/pgtest"
)

// Postgres ends all connections of a pool at once; none of the queries that come then has to know.
func TestConnectionsThatEndedAreNotHandedOut(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	(&Database{MaxConnections: 5}).tune(config)
	config.ConnConfig.RuntimeParams["application_name"] = "to be ended"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	var conns []*pgxpool.Conn
	for range 5 {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		conn.Release()
	}
	other := pgtest.Pool(t)
	until(t, "all connections to be at an end", func() (ended bool) {
		err := other.QueryRow(t.Context(), `select count(pg_terminate_backend(pid)) = 0 from pg_stat_activity
			where application_name = 'to be ended' and datname = current_database()`).Scan(&ended)
		return err == nil && ended
	})
	for range 5 {
		if _, err := pool.Exec(t.Context(), "select 1"); err != nil {
			t.Error(err)
		}
	}
	if n := pool.Stat().NewConnsCount(); n == 5 {
		t.Error("no connection is new")
	}
}

func TestTheEndOfAConnectionIsSeen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		network, address string
		secured          bool
	}{{"tcp", "127.0.0.1:0", false}, {"tcp", "127.0.0.1:0", true}, {"unix", filepath.Join(t.TempDir(), "s"), false}} {
		client, server := connected(t, c.network, c.address, c.secured)
		if !silent(client) {
			t.Errorf("%+v: nothing has come", c)
		}
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		until(t, "the end to be seen", func() bool { return !silent(client) })
	}
}

// connected returns the ends of a connection over which something was sent and read each way.
func connected(t *testing.T, network, address string, secured bool) (client, server net.Conn) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	if client, err = (&net.Dialer{}).DialContext(t.Context(), network, listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	if secured {
		example := httptest.NewTLSServer(nil) // for its certificate
		t.Cleanup(example.Close)
		roots := x509.NewCertPool()
		roots.AddCert(example.Certificate())
		client = tls.Client(client, &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS13})
		server = tls.Server(server, &tls.Config{Certificates: example.TLS.Certificates, MinVersion: tls.VersionTLS13})
	}
	t.Cleanup(func() { _ = errors.Join(client.Close(), server.Close()) })
	echoed := make(chan error, 1)
	go func() {
		_, err := io.CopyN(server, server, 1)
		echoed <- err
	}()
	_, err = client.Write([]byte("x"))
	if err == nil {
		_, err = io.ReadFull(client, make([]byte, 1))
	}
	if err := errors.Join(err, <-echoed); err != nil {
		t.Fatal(err)
	}
	return client, server
}
