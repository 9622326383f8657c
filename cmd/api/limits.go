package main

import (
	"fmt"
	"reflect"
	"time"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/internal/queries"
)

// Limits are what a request may ask of the server. All are in force by default.
type Limits struct {
	MaxBodyBytes      int `name:"max-body-bytes" env:"MAX_BODY_BYTES" default:"1048576" help:"Bytes of a request or of a WebSocket's message."`
	MaxVariablesBytes int `name:"max-variables-bytes" env:"MAX_VARIABLES_BYTES" default:"262144" help:"Bytes of the variables in it."`
	MaxDocumentBytes  int `name:"max-document-bytes" env:"MAX_DOCUMENT_BYTES" default:"65536" help:"Bytes of a document."`
	MaxTokens         int `name:"max-tokens" env:"MAX_TOKENS" default:"2000" help:"Tokens of a document."`
	MaxDepth          int `name:"max-depth" env:"MAX_DEPTH" default:"15" help:"Fields nested in one another."`
	MaxCost           int `name:"max-cost" env:"MAX_COST" default:"20000" help:"Cost of an operation: one for each field that it may return, more for dear ones."`
	MaxRootFields     int `name:"max-root-fields" env:"MAX_ROOT_FIELDS" default:"20" help:"Fields at the root of an operation."`
	MaxAliases        int `name:"max-aliases" env:"MAX_ALIASES" default:"50" help:"Aliases of an operation."`
	MaxDirectives     int `name:"max-directives" env:"MAX_DIRECTIVES" default:"5" help:"Directives at one place of a document."`
	MaxPage           int `name:"max-page" env:"MAX_PAGE" default:"100" help:"Rows of a page, and ids asked for at once."`
	MaxFold           int `name:"max-fold" env:"MAX_FOLD" default:"100000" help:"Events folded for a state of an object's past."`

	DocumentCacheBytes int `name:"document-cache-bytes" env:"DOCUMENT_CACHE_BYTES" default:"67108864" help:"Memory for parsed documents."`
	PersistedBytes     int `name:"persisted-bytes" env:"PERSISTED_BYTES" default:"16777216" help:"Memory for documents that clients registered by their hash."`

	RequestTimeout   time.Duration `name:"request-timeout" env:"REQUEST_TIMEOUT" default:"60s" help:"Time for a request, the waiting for read models in it."`
	StatementTimeout time.Duration `name:"statement-timeout" env:"STATEMENT_TIMEOUT" default:"10s" help:"Time for one statement that reads a view; 0 for no end. Set where connections go to Postgres itself; behind a pooler, set it there."`

	MaxStreams              int `name:"max-streams" env:"MAX_STREAMS" default:"10000" help:"WebSockets and event streams open at once."`
	MaxSocketStreams        int `name:"max-socket-streams" env:"MAX_SOCKET_STREAMS" default:"100" help:"Operations open on one WebSocket."`
	MaxSubscriptions        int `name:"max-subscriptions" env:"MAX_SUBSCRIPTIONS" default:"20000" help:"Subscriptions open at once."`
	MaxSubjectSubscriptions int `name:"max-subject-subscriptions" env:"MAX_SUBJECT_SUBSCRIPTIONS" default:"500" help:"Subscriptions open on behalf of one subject."`
	MaxLiveRows             int `name:"max-live-rows" env:"MAX_LIVE_ROWS" default:"10000" help:"Rows of a list that keeps itself up to date."`
}

// Switches are what the mode turns on or off, and what is off unless it is asked for.
type Switches struct {
	GraphiQL         graph.Switch `name:"graphiql" env:"GRAPHIQL" placeholder:"on|off" help:"Serve GraphiQL on /. On in development."`
	Introspection    graph.Switch `name:"introspection" env:"INTROSPECTION" placeholder:"on|off" help:"Answer introspection. On in development."`
	Suggestions      graph.Switch `name:"suggestions" env:"SUGGESTIONS" placeholder:"on|off" help:"Suggest names in the errors of documents. On in development."`
	TrustedDocuments string       `name:"trusted-documents" env:"TRUSTED_DOCUMENTS" placeholder:"FILE" help:"Manifest of documents that clients may name by id. SIGHUP reads it anew."`
	TrustedOnly      bool         `name:"trusted-documents-only" env:"TRUSTED_DOCUMENTS_ONLY" help:"Execute no document that is not in the manifest."`
}

// Validate refuses what is below zero. Zero stands for the default.
func (l *Limits) Validate() error {
	v := reflect.ValueOf(l).Elem()
	for i := range v.NumField() {
		if v.Field(i).Int() < 0 {
			tag := v.Type().Field(i).Tag
			return fmt.Errorf("%s (--%s) is below zero: leave it out for the default", tag.Get("env"), tag.Get("name"))
		}
	}
	return nil
}

// apply puts limits and switches into what the GraphQL handler is told.
func (c *Config) apply(to *graph.Config) {
	l, s := &c.Limits, &c.Switches
	to.GraphiQL, to.Introspection, to.Suggestions = s.GraphiQL, s.Introspection, s.Suggestions
	to.TrustedDocuments, to.TrustedOnly = s.TrustedDocuments, s.TrustedOnly
	to.MaxBodyBytes, to.MaxVariablesBytes, to.MaxDocumentBytes = l.MaxBodyBytes, l.MaxVariablesBytes, l.MaxDocumentBytes
	to.MaxTokens, to.MaxDepth, to.MaxCost = l.MaxTokens, l.MaxDepth, l.MaxCost
	to.MaxRootFields, to.MaxAliases, to.MaxDirectives = l.MaxRootFields, l.MaxAliases, l.MaxDirectives
	to.MaxPage, to.MaxFold, to.RequestTimeout = l.MaxPage, l.MaxFold, l.RequestTimeout
	to.DocumentCacheBytes, to.PersistedBytes = l.DocumentCacheBytes, l.PersistedBytes
	to.MaxStreams, to.MaxSocketStreams = l.MaxStreams, l.MaxSocketStreams
	to.MaxSubscriptions, to.MaxSubjectSubscriptions = l.MaxSubscriptions, l.MaxSubjectSubscriptions
	to.MaxLiveRows = l.MaxLiveRows
}

func (l *Limits) page() queries.PageConfig { return queries.PageConfig{Max: l.MaxPage} }
