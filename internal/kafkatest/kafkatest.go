// Package kafkatest runs kfake inside a test, a fake of Kafka's brokers that speaks its protocol, stops it, and loses what it
// answers. It is for tests only: nothing else may import it, so that no program carries a broker.
package kafkatest

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Server is one broker on a port and in a folder of its own, which it keeps when it is started again. It ends with the test.
// Its methods must not be called at the same time.
type Server struct {
	*kfake.Cluster        // while it runs
	Addr           string // host:port

	t       testing.TB
	dir     string
	options []kfake.Opt

	mu   sync.Mutex
	lose map[kmsg.Key]bool // of which the next answer is lost
}

// Start returns a server that is ready.
func Start(t testing.TB, options ...kfake.Opt) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir(), options: options, lose: make(map[kmsg.Key]bool)}
	s.start(freePort(t))
	s.Addr = s.ListenAddrs()[0]
	t.Cleanup(func() { s.Close() })
	return s
}

// freePort finds one that nobody listens on, and that no system gives to one's own end of a connection, which is done from
// 32768 on: somebody else would have it while the server is stopped.
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

// Start starts it again, after Close.
func (s *Server) Start() {
	s.t.Helper()
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		s.t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		s.t.Fatal(err)
	}
	s.start(number)
}

func (s *Server) start(port int) {
	s.t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(s.dir), kfake.ListenFn(s.listen),
	}, s.options...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Cluster = cluster
}

// Lose has it do what the next request of the kind asks for, and end the connection in place of an answer.
func (s *Server) Lose(kind kmsg.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose[kind] = true
}

// lost says whether the answer is the one to lose.
func (s *Server) lost(kind kmsg.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := s.lose[kind]
	delete(s.lose, kind)
	return lost
}

func (s *Server) listen(network, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	return &listener{l, s}, nil
}

type listener struct {
	net.Listener
	server *Server
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, server: l.server}, nil
}

// conn knows the kind of the request that it read last. Requests are a length in four bytes, their kind in two, and the rest.
type conn struct {
	net.Conn
	server *Server

	rest int    // of the request that is being read
	head []byte // of the one that begins

	mu   sync.Mutex
	kind kmsg.Key
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for read := p[:n]; len(read) > 0; {
		if c.rest > 0 {
			skip := min(c.rest, len(read))
			c.rest, read = c.rest-skip, read[skip:]
			continue
		}
		c.head, read = append(c.head, read[0]), read[1:]
		if len(c.head) == 6 {
			c.rest = int(binary.BigEndian.Uint32(c.head)) - 2
			c.mu.Lock()
			c.kind = kmsg.Key(binary.BigEndian.Uint16(c.head[4:]))
			c.mu.Unlock()
			c.head = nil
		}
	}
	return n, err
}

// Write is called once for each answer.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	kind := c.kind
	c.mu.Unlock()
	if c.server.lost(kind) {
		return 0, errors.Join(errors.New("the answer is lost"), c.Close())
	}
	return c.Conn.Write(p)
}
