package outbox_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// mutedWire carries bytes between clients and Postgres; mute makes the connections that there are carry nothing, not even
// that the other side has gone, as a firewall does that forgot them.
type mutedWire struct {
	url string

	mu    sync.Mutex
	muted []chan struct{}
	count int          // connections that were made
	said  bytes.Buffer // by clients
}

func newMutedWire(t *testing.T, config *pgx.ConnConfig) *mutedWire {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &mutedWire{}
	address := listener.Addr().(*net.TCPAddr)
	w.url = "postgres://" + config.User + "@127.0.0.1:" + strings.Split(address.String(), ":")[1] + "/" + config.Database + "?sslmode=disable"
	var conns sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	network, server := pgconn.NetworkAddress(config.Host, config.Port)
	conns.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			upstream, err := (&net.Dialer{}).DialContext(ctx, network, server)
			if err != nil {
				_ = client.Close()
				continue
			}
			quiet := make(chan struct{})
			w.mu.Lock()
			w.muted = append(w.muted, quiet)
			w.count++
			w.mu.Unlock()
			context.AfterFunc(ctx, func() { _ = client.Close(); _ = upstream.Close() })
			conns.Go(func() { carry(upstream, client, quiet, w.note) })
			conns.Go(func() { carry(client, upstream, quiet, nil) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		conns.Wait()
	})
	return w
}

func carry(to, from net.Conn, muted <-chan struct{}, note func([]byte)) {
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		select {
		case <-muted:
			if err != nil {
				return
			}
			continue
		default:
		}
		if err != nil {
			_ = to.Close()
			return
		}
		if note != nil {
			note(buffer[:n])
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (w *mutedWire) note(said []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said.Write(said)
}

// sent is all that clients sent so far, as it went over the wire.
func (w *mutedWire) sent() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.String()
}

// made is how many connections there have been.
func (w *mutedWire) made() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// mute returns how many connections had been made.
func (w *mutedWire) mute() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, quiet := range w.muted {
		close(quiet)
	}
	w.muted = nil
	return w.count
}

// door is where a Postgres should be, and is none.
type door struct {
	url   string
	count atomic.Int64
}

// newDoor takes connections until the test ends, and does with each what is said.
func newDoor(t *testing.T, do func(net.Conn)) *door {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{url: "postgres://nobody@" + listener.Addr().String() + "/nothing?sslmode=disable"}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			d.count.Add(1)
			do(conn)
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		accepting.Wait()
	})
	return d
}

// knocks is how many connections there were.
func (d *door) knocks() int64 { return d.count.Load() }
