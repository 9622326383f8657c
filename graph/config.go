package graph

import (
	"log/slog"
	"net/http"
	"time"
)

// Config sets the limits of a Handler. The zero value is ready for use in production.
type Config struct {
	// Development serves GraphiQL on /, answers introspection, and lets error messages suggest names.
	Development bool

	// PublishSchema serves the schema as one document on /schema.graphql, as Development does too.
	PublishSchema bool

	// Actor says on whose behalf a request or a WebSocket acts. Nil takes the X-Actor header as it is, up to 100 bytes.
	// Nobody is authenticated here: put a proxy in front that sets the header and removes what clients send, or give
	// a function that knows your sessions.
	Actor func(*http.Request) string

	// Origins are the other origins, such as https://shop.example.org, whose pages may send requests and open
	// WebSockets. None: only pages of the same origin.
	Origins []string

	// Logger gets the errors whose text clients do not see. Nil stands for slog.Default().
	Logger *slog.Logger

	MaxBodyBytes  int // of a request or a WebSocket's message; 0 stands for 1 MiB
	MaxTokens     int // of a document; 0 stands for 2,000
	MaxDepth      int // of nested fields; 0 stands for 15
	MaxCost       int // of an operation, one for each field that it may return; 0 stands for 20,000
	MaxRootFields int // of an operation, aliases counted; 0 stands for 20

	DocumentCache int // parsed and validated documents kept in memory, of 16 KiB at most each; 0 stands for 1,000

	MaxStreams         int           // open WebSockets and event streams at once; 0 stands for 10,000
	MaxSocketStreams   int           // subscriptions on one WebSocket at once; 0 stands for 100
	InitTimeout        time.Duration // until a WebSocket's client has sent connection_init; 0 stands for 10 s
	RequestTimeout     time.Duration // of a query or mutation over HTTP, the waiting for read models in it; 0 stands for 60 s
	WaitDefault        time.Duration // how long a read model is waited for when `within` is not given; 0 stands for 2 s
	KeepAlive          time.Duration // between signs of life on idle streams; 0 stands for 15 s
	StreamWriteTimeout time.Duration // after which a client that does not read its stream is dropped; 0 stands for 10 s
}

func (c Config) withDefaults() Config {
	if c.Actor == nil {
		c.Actor = func(r *http.Request) string { return r.Header.Get("X-Actor") }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.MaxBodyBytes = or(c.MaxBodyBytes, 1<<20)
	c.MaxTokens = or(c.MaxTokens, 2_000)
	c.MaxDepth = or(c.MaxDepth, 15)
	c.MaxCost = or(c.MaxCost, 20_000)
	c.MaxRootFields = or(c.MaxRootFields, 20)
	c.DocumentCache = or(c.DocumentCache, 1_000)
	c.MaxStreams = or(c.MaxStreams, 10_000)
	c.MaxSocketStreams = or(c.MaxSocketStreams, 100)
	c.InitTimeout = or(c.InitTimeout, 10*time.Second)
	c.RequestTimeout = or(c.RequestTimeout, time.Minute)
	c.WaitDefault = or(c.WaitDefault, 2*time.Second)
	c.KeepAlive = or(c.KeepAlive, 15*time.Second)
	c.StreamWriteTimeout = or(c.StreamWriteTimeout, 10*time.Second)
	return c
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
