package transport

import (
	"context"
	"net/http"
	"time"

	"github.com/99designs/gqlgen/graphql"
)

// Config sets what a Server lets through and whom it asks. The zero value works: it has all limits and lets everybody in.
type Config struct {
	MaxBodyBytes      int // of a request or a WebSocket's message; 0 stands for 1 MiB
	MaxVariablesBytes int // of the variables in it; 0 stands for 256 KiB

	RequestTimeout time.Duration // of a query or mutation over any transport, from when it was read; 0 stands for 60 s
	InitTimeout    time.Duration // until a WebSocket's connection_init was accepted; 0 stands for 10 s
	KeepAlive      time.Duration // between signs of life on idle streams; 0 stands for 15 s
	WriteTimeout   time.Duration // within which a peer takes a message or answers a ping, or is dropped; 0 stands for 10 s
	SlowAfter      time.Duration // how long a result waits for room in the queue before its operation ends; 0 stands for 5 s

	QueueMessages int // results waiting for the peer of one connection; 0 stands for 64
	QueueBytes    int // of these, though one result always has room; 0 stands for 256 KiB
	MaxOperations int // open on one WebSocket; 0 stands for 100
	MaxStreams    int // WebSockets and event streams open in the process; 0 stands for 10,000

	// Login says on whose behalf a request or a socket acts. It is called once for each HTTP request, with a nil
	// payload, and once for each connection_init. The returned context, which must come from the one given, is that of
	// the operations; expires, unless it is zero, ends the stream. An error refuses: over HTTP with 401 and
	// WWW-Authenticate, on a socket with 4403. A *gqlerror.Error goes to the client as it is, so that its
	// extensions.code decides on the status; of any other the client learns nothing but UNAUTHENTICATED. Nil lets
	// everybody in.
	Login func(ctx context.Context, r *http.Request, payload map[string]any) (_ context.Context, expires time.Time, err error)

	// Challenge is the value of WWW-Authenticate on 401; "" stands for Bearer.
	Challenge string

	// Admit is asked before each operation. An error refuses it with its text and RATE_LIMITED: over HTTP with status 429
	// and Retry-After, on a socket by the operation's error. Nil admits all.
	Admit func(ctx context.Context, r *http.Request) (retryAfter time.Duration, err error)

	// Validator gives the ETag, quotes included, of what a query by GET would answer, before it is executed; false says
	// that there is none. A request whose If-None-Match has it is answered by 304. Nil: no answer has one.
	Validator func(ctx context.Context, oc *graphql.OperationContext) (etag string, ok bool)

	// Recover turns a panic outside of resolvers into the error that the client gets. Nil says that it was internal.
	Recover func(ctx context.Context, cause any) error
}

func (c Config) withDefaults() Config {
	c.MaxBodyBytes = or(c.MaxBodyBytes, 1<<20)
	c.MaxVariablesBytes = or(c.MaxVariablesBytes, 256<<10)
	c.RequestTimeout = or(c.RequestTimeout, time.Minute)
	c.InitTimeout = or(c.InitTimeout, 10*time.Second)
	c.KeepAlive = or(c.KeepAlive, 15*time.Second)
	c.WriteTimeout = or(c.WriteTimeout, 10*time.Second)
	c.SlowAfter = or(c.SlowAfter, 5*time.Second)
	c.QueueMessages = or(c.QueueMessages, 64)
	c.QueueBytes = or(c.QueueBytes, 256<<10)
	c.MaxOperations = or(c.MaxOperations, 100)
	c.MaxStreams = or(c.MaxStreams, 10_000)
	c.Challenge = or(c.Challenge, "Bearer")
	if c.Recover == nil {
		c.Recover = func(context.Context, any) error { return refuse(CodeInternal, "internal error") }
	}
	return c
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
