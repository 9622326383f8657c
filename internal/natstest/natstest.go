// Package natstest runs a NATS server with JetStream inside a test, stops it, empties it, takes it back
// to what it was, and cuts it off. It is for tests
// only: nothing else may import it, so that no program carries the server.
package natstest

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// patience is far more than a server takes to start or to end on a busy machine.
const patience = 2 * time.Minute

// Server is a server on a port and in a folder of its own, which it keeps when it is started again. It ends with the
// test. Its methods must not be called at the same time.
type Server struct {
	URL string

	t       testing.TB
	dir     string
	port    int
	running *server.Server
}

// Start returns a server that is ready.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, dir: filepath.Join(t.TempDir(), "jetstream"), port: freePort(t)}
	s.Start()
	t.Cleanup(func() {
		s.Stop()
		s.remove()
	})
	s.URL = s.running.ClientURL()
	return s
}

// freePort finds one that nobody listens on. While the server is stopped no other test may get it, neither for a server nor
// for its own end of a connection: systems give those ports from 32768 on.
func freePort(t testing.TB) int {
	t.Helper()
	for {
		port := 20_000 + rand.IntN(12_000)
		listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = listener.Close()
			return port
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// Start starts it again.
func (s *Server) Start() {
	s.t.Helper()
	running, err := server.NewServer(&server.Options{
		ServerName: "natstest", Host: "127.0.0.1", Port: s.port, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: s.dir, JetStreamMaxStore: 64 << 30, JetStreamMaxMemory: 1 << 30,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	running.Start()
	if !running.ReadyForConnections(patience) {
		s.t.Fatal("the NATS server did not start")
	}
	s.running = running
}

// Stop stops it. What it acknowledged is kept.
func (s *Server) Stop() {
	s.running.Shutdown()
	s.running.WaitForShutdown()
}

// Wipe stops it and deletes all that it holds.
func (s *Server) Wipe() {
	s.t.Helper()
	s.Stop()
	s.remove()
}

// remove deletes what a stopped server holds. It may write a last file when it says that it has stopped.
func (s *Server) remove() {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := os.RemoveAll(s.dir)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal(err)
		}
	}
}

// Save stops it and returns a copy of all that it holds, for Restore.
func (s *Server) Save() (copied string) {
	s.t.Helper()
	s.Stop()
	copied = filepath.Join(s.t.TempDir(), "copy")
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := os.CopyFS(copied, os.DirFS(s.dir))
		if err == nil {
			return copied
		}
		if err = errors.Join(err, os.RemoveAll(copied)); time.Now().After(deadline) { // a file is replaced as it is copied; see remove
			s.t.Fatal(err)
		}
	}
}

// Restore stops it and has it hold again what was copied, and nothing that came after.
func (s *Server) Restore(copied string) {
	s.t.Helper()
	s.Wipe()
	if err := os.CopyFS(s.dir, os.DirFS(copied)); err != nil {
		s.t.Fatal(err)
	}
}

// Proxy stands between a client and a server, and breaks the connection when it is told to.
type Proxy struct {
	URL string

	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu       sync.Mutex
	cut      bool
	conns    map[net.Conn]bool
	expected int           // messages until it is released
	released chan struct{} // nil: nothing is held back
}

// NewProxy returns a proxy for a server. It ends with the test.
func NewProxy(t testing.TB, s *Server) *Proxy {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{
		URL: "nats://" + listener.Addr().String(), listener: listener, conns: make(map[net.Conn]bool),
		target: s.running.Addr().String(),
	}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.Cut()
		p.running.Wait()
	})
	return p
}

// Cut breaks all connections and lets no new one through.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	p.release()
	for conn := range p.conns {
		_ = conn.Close()
	}
}

// Mend lets connections through again.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	if !p.keep(client) {
		return
	}
	defer p.drop(client)
	backend, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		return
	}
	defer backend.Close()
	p.running.Go(func() {
		_, _ = io.Copy(&forServer{Conn: backend, p: p}, client)
		_ = backend.Close()
	})
	_, _ = io.Copy(forClient{client, p}, backend)
}

func (p *Proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return false
	}
	p.conns[conn] = true
	return true
}

func (p *Proxy) drop(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}
