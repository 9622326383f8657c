package transport

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// Server answers GraphQL requests over all transports. It is safe for concurrent use.
type Server struct {
	cfg        Config
	exec       graphql.GraphExecutor
	transports [3]graphql.Transport

	life    context.Context // ends when the server drains
	drain   context.CancelFunc
	streams sync.WaitGroup
	open    atomic.Int64 // streams
	mu      sync.Mutex   // orders the first wait for streams and the last that begins
}

const drainingText = "the server is going down"

// New returns a server of an executor.
func New(exec graphql.GraphExecutor, cfg Config) *Server {
	s := &Server{cfg: cfg.withDefaults(), exec: exec}
	s.transports = [3]graphql.Transport{sockets{s}, events{s}, plain{s}}
	s.life, s.drain = context.WithCancel(context.Background())
	return s
}

// Streams is how many WebSockets and event streams are open.
func (s *Server) Streams() int { return int(s.open.Load()) }

// ServeHTTP answers a request by the first transport that can.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, t := range &s.transports {
		if t.Supports(r) {
			t.Do(w, r, s.exec)
			return
		}
	}
}

// Drain ends all streams, so that their clients go on with another server, and refuses new ones. It returns when they
// have ended, or with the context's error.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	s.drain()
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.streams.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain subscriptions: %w", ctx.Err())
	}
}

// beginStream counts a stream. The caller ends it when the server drains, and calls ended once.
func (s *Server) beginStream() (ended func(), refused *gqlerror.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return nil, refuse(CodeDraining, drainingText)
	}
	if s.open.Load() >= int64(s.cfg.MaxStreams) {
		return nil, refuse(CodeTooManyStreams, "at most %d streams may be open", s.cfg.MaxStreams)
	}
	s.open.Add(1)
	s.streams.Add(1)
	return func() {
		s.open.Add(-1)
		s.streams.Done()
	}, nil
}

// asked is what an HTTP request comes to, before it is executed.
type asked struct {
	ctx     context.Context
	expires time.Time
	params  *graphql.RawParams
}

// receive does what plain requests and event streams have in common: it looks who asks, whether that one may, and for
// what. Headers that belong to a refusal are set already.
func (s *Server) receive(w http.ResponseWriter, r *http.Request) (asked, *gqlerror.Error) {
	a := asked{ctx: graphql.StartOperationTrace(r.Context())}
	if r.Method != http.MethodPost && r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET, POST")
		return a, refuse(CodeMethod, "the method is not allowed; use GET or POST")
	}
	if s.cfg.Login != nil {
		ctx, expires, err := s.cfg.Login(a.ctx, r, nil)
		if err != nil {
			return a, presentable(err, CodeUnauthenticated, "the request is not authenticated")
		}
		a.ctx, a.expires = ctx, expires
	}
	retryAfter, refused := s.admit(a.ctx, r)
	if refused != nil {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(max(retryAfter, time.Second).Seconds()))))
		return a, refused
	}
	a.params, refused = s.readRequest(w, r)
	return a, refused
}

func (s *Server) admit(ctx context.Context, r *http.Request) (time.Duration, *gqlerror.Error) {
	if s.cfg.Admit == nil {
		return 0, nil
	}
	retryAfter, err := s.cfg.Admit(ctx, r)
	if err == nil {
		return 0, nil
	}
	refused := presentable(err, CodeRateLimited, err.Error())
	if refused.Extensions == nil {
		refused.Extensions = map[string]any{"code": CodeRateLimited}
	}
	if _, told := refused.Extensions["retryAfterMs"]; !told {
		refused.Extensions["retryAfterMs"] = retryAfter.Milliseconds()
	}
	return retryAfter, refused
}

// refuseByGET says no to what a GET must not do, since pages of others can send it.
func refuseByGET(w http.ResponseWriter, r *http.Request, kind ast.Operation) *gqlerror.Error {
	if r.Method != http.MethodGet || kind != ast.Mutation {
		return nil
	}
	w.Header().Set("Allow", "POST")
	return refuse(CodeMethod, "GET only queries; send mutations by POST")
}

// guard is deferred. It answers a request that ended in a panic, unless its answer was begun.
func (s *Server) guard(w http.ResponseWriter, r *http.Request, mediaType string, begun *bool) {
	cause := recover()
	if cause == nil {
		return
	}
	if *begun || cause == http.ErrAbortHandler {
		panic(cause)
	}
	write(w, http.StatusInternalServerError, or(mediaType, typeJSON), s.recovered(r.Context(), cause))
}

// recovered is the response to a panic outside of what gqlgen guards.
func (s *Server) recovered(ctx context.Context, cause any) *graphql.Response {
	err := s.cfg.Recover(ctx, cause)
	return &graphql.Response{Errors: gqlerror.List{presentable(err, CodeInternal, "internal error")}}
}
