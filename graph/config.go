package graph

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/99designs/gqlgen/graphql"
)

// Config sets the limits of a Handler. The zero value is ready for use in production.
type Config struct {
	// Development serves GraphiQL on /, answers introspection, and lets error messages suggest names. Each of the three
	// can be said by itself.
	Development   bool
	GraphiQL      Switch
	Introspection Switch
	Suggestions   Switch

	// PublishSchema serves the schema as one document on /schema.graphql, as Development does too.
	PublishSchema bool

	// Login says on whose behalf a request or a WebSocket acts and until when, from the request and from the payload of
	// connection_init, which is nil for requests; Admit bounds the rate of operations; Validator gives the ETag of
	// queries by GET. transport.Config has the details of each. Login puts an identity into the context with
	// identity.NewContext; package auth has one for tokens and one that lets everybody do everything. Without Login, and
	// without an identity, nobody is known, and gets what the rules give to everybody. Nil of Admit does nothing; nil of
	// Validator works ETags out from the positions of the views that are read.
	Login     func(ctx context.Context, r *http.Request, payload map[string]any) (_ context.Context, expires time.Time, err error)
	Admit     func(ctx context.Context, r *http.Request) (retryAfter time.Duration, err error)
	Validator func(ctx context.Context, oc *graphql.OperationContext) (etag string, ok bool)

	// Origins are the other origins, such as https://shop.example.org, whose pages may send requests, read
	// the answers and open WebSockets. None: only pages of the same origin.
	Origins []string

	// Logger gets the errors whose text clients do not see. Nil stands for slog.Default().
	Logger *slog.Logger

	// LogRequests writes the line that each operation leaves in the log at info. Without it, they are at debug.
	LogRequests bool

	// TrustedDocuments is the path of a manifest of documents that clients may name instead of sending them: a JSON object
	// of ids and documents, or a manifest in Apollo's format. TrustedOnly refuses every document that is not in it.
	TrustedDocuments string
	TrustedOnly      bool

	MaxBodyBytes      int // of a request or a WebSocket's message; 0 stands for 1 MiB
	MaxVariablesBytes int // of the variables in it; 0 stands for 256 KiB
	MaxDocumentBytes  int // of a document; 0 stands for 64 KiB
	MaxTokens         int // of a document; 0 stands for 2,000
	MaxDepth          int // of nested fields; 0 stands for 15
	MaxCost           int // of an operation, one for each field that it may return and more for dear ones; 0 stands for 20,000
	MaxRootFields     int // of an operation, aliases counted; 0 stands for 20
	MaxAliases        int // of an operation, those of fragments counted each time; 0 stands for 50
	MaxDirectives     int // at one place of a document, such as a field; 0 stands for 5
	MaxPage           int // events in a page, and ids of nodes; 0 stands for 100

	DocumentCache      int // parsed and validated documents kept in memory; 0 stands for 1,000
	DocumentCacheBytes int // memory that these may take, roughly; 0 stands for 64 MiB
	PersistedDocuments int // documents that clients named by their hash and may then leave out; 0 stands for 10,000
	PersistedBytes     int // of the texts of these; 0 stands for 16 MiB

	// Freshness adds extensions.freshness to every answer from a read model, not just to those that ask for it.
	Freshness bool
	MaxFold   int // events of an object folded for a state of its past; 0 stands for 100,000

	MaxSubscriptions        int // open at once in the process; 0 stands for 20,000
	MaxSubjectSubscriptions int // open at once on behalf of one subject, over all its connections; 0 stands for 500

	MaxLiveRows        int           // rows of a list that keeps itself up to date; 0 stands for 10,000
	MaxStreams         int           // open WebSockets and event streams at once; 0 stands for 10,000
	MaxSocketStreams   int           // operations open on one WebSocket at once; 0 stands for 100
	InitTimeout        time.Duration // until a WebSocket's client has logged in by connection_init; 0 stands for 10 s
	RequestTimeout     time.Duration // of a query or mutation, the waiting for read models in it; 0 stands for 60 s
	WaitDefault        time.Duration // how long a read model is waited for when `within` is not given; 0 stands for 2 s
	KeepAlive          time.Duration // between signs of life on idle streams; 0 stands for 15 s
	SlowAfter          time.Duration // how long a result waits for a slow client before its subscription ends; 0 stands for 5 s
	StreamWriteTimeout time.Duration // after which a client that does not read its stream is dropped; 0 stands for 10 s
	QueueMessages      int           // results that wait for one stream's client; 0 stands for 64
	QueueBytes         int           // of these, though one always has room; 0 stands for 256 KiB
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.GraphiQL = c.GraphiQL.or(c.Development)
	c.Introspection = c.Introspection.or(c.Development)
	c.Suggestions = c.Suggestions.or(c.Development)
	c.MaxBodyBytes = or(c.MaxBodyBytes, 1<<20)
	c.MaxVariablesBytes = or(c.MaxVariablesBytes, 256<<10)
	c.MaxDocumentBytes = or(c.MaxDocumentBytes, 64<<10)
	c.MaxTokens = or(c.MaxTokens, 2_000)
	c.MaxDepth = or(c.MaxDepth, 15)
	c.MaxCost = or(c.MaxCost, 20_000)
	c.MaxRootFields = or(c.MaxRootFields, 20)
	c.MaxAliases = or(c.MaxAliases, 50)
	c.MaxDirectives = or(c.MaxDirectives, 5)
	c.MaxPage = or(c.MaxPage, 100)
	c.DocumentCache = or(c.DocumentCache, 1_000)
	c.DocumentCacheBytes = or(c.DocumentCacheBytes, 64<<20)
	c.PersistedDocuments = or(c.PersistedDocuments, 10_000)
	c.PersistedBytes = or(c.PersistedBytes, 16<<20)
	c.MaxSubscriptions = or(c.MaxSubscriptions, 20_000)
	c.MaxSubjectSubscriptions = or(c.MaxSubjectSubscriptions, 500)
	c.MaxLiveRows = or(c.MaxLiveRows, 10_000)
	c.WaitDefault = or(c.WaitDefault, 2*time.Second)
	return c
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Switch turns something on or off whatever the mode is. The zero value leaves it to the mode.
type Switch int

// What a Switch can say.
const (
	ByMode Switch = iota
	On
	Off
)

func (s Switch) or(on bool) Switch {
	switch {
	case s != ByMode:
		return s
	case on:
		return On
	}
	return Off
}

// UnmarshalText reads on, off, true or false. The empty text is ByMode.
func (s *Switch) UnmarshalText(text []byte) error {
	switch string(text) {
	case "":
		*s = ByMode
	case "on", "true":
		*s = On
	case "off", "false":
		*s = Off
	default:
		return fmt.Errorf("%q is neither on nor off", text)
	}
	return nil
}
