package eventstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrClosed is the answer to an append after Close began. Nothing was written.
var ErrClosed = errors.New("the event store is closed")

// Store appends to and reads one log. It is safe for concurrent use. A process should have one for each log: appends
// coalesce within a Store.
type Store struct {
	pool     *pgxpool.Pool
	registry *Registry
	cfg      Config
	appender *appender
	stop     context.CancelFunc
	tasks    sync.WaitGroup
	counts   counts

	named      bool                 // prepared statements are kept; see FitPooler
	statements map[string]string    // of an append, by name
	blind      atomic.Bool          // Postgres does not tell where the log is
	mark       atomic.Pointer[Mark] // of position 0
	memory     memory

	mu     sync.Mutex
	head   int64
	next   chan struct{}
	logID  uuid.UUID
	here   place         // where the log was when last looked at; zero: Postgres does not tell
	epoch  int32         // the newest that was seen; 0 before the first
	raised chan struct{} // closed when that changes
}

// Open connects to the log of a migrated database and starts the appender, which has a connection of its own beside the
// pool's. It fails when the database's default transaction isolation is not read committed: dense positions rest on
// every statement seeing what was committed before it. Behind a pooler, the pool's configuration has to have gone through
// FitPooler. When the database was restored, or a standby of it promoted, since the log was opened last, its epoch is raised.
func Open(ctx context.Context, pool *pgxpool.Pool, registry *Registry, cfg Config) (*Store, error) {
	s := newStore(pool, registry, cfg)
	var isolation string
	if err := pool.QueryRow(ctx, sqlIsolation).Scan(&isolation); err != nil {
		return nil, fmt.Errorf("reading the log (is the database migrated?): %w", err)
	}
	if isolation != "read committed" {
		return nil, fmt.Errorf("the log needs transaction isolation read committed, the database's default is %s", isolation)
	}
	if err := s.Review(ctx); err != nil {
		return nil, err
	}
	if s.blind.Load() {
		s.statements[nameLock], s.statements[nameLockFull] = sqlLock, sqlLockFull
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.appender = newAppender(s)
	for range committers {
		s.tasks.Go(s.appender.run)
	}
	s.tasks.Go(func() { s.forgetReceipts(running) })
	s.tasks.Go(func() { s.watch(running) })
	return s, nil
}

func newStore(pool *pgxpool.Pool, registry *Registry, cfg Config) *Store {
	return &Store{
		pool: pool, registry: registry, cfg: cfg.withDefaults(),
		named:      pool.Config().ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement,
		statements: statementTexts(),
		next:       make(chan struct{}), raised: make(chan struct{}),
	}
}

// Close refuses new appends, sends what waits, and returns when all was answered or ctx ends; then what still waits is
// answered with ErrClosed. It does not close the pool.
func (s *Store) Close(ctx context.Context) error {
	s.stop()
	s.appender.close()
	done := make(chan struct{})
	go func() {
		s.tasks.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.appender.abort()
		return fmt.Errorf("closing the event store: %w", ctx.Err())
	}
}

// Registry is the one the store was opened with.
func (s *Store) Registry() *Registry { return s.registry }

// Append writes the request, whole or not at all, and answers when it is durable.
//
// Errors: *InvalidRequestError, *UnknownEventError, *ConflictError, *ClaimTakenError, *CommandIDReusedError,
// *OverloadedError, *HistoryError and ErrClosed say that nothing was written; so does ctx's error, which is returned when ctx ends
// before the request was sent. *UnknownOutcomeError says that it cannot be known.
func (s *Store) Append(ctx context.Context, r Request) (Receipt, error) {
	p, err := s.prepare(&r)
	if err != nil {
		return Receipt{}, err
	}
	return s.appender.append(ctx, p)
}

// Committed tells of this process's own commits, without asking the database: the newest position it committed, 0 before
// the first, and a channel that is closed when that advances, or by Wake. It is a hint to look; other processes append too.
func (s *Store) Committed() (head int64, next <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head, s.next
}

// committed takes over the token of a commit's newest event.
func (s *Store) committed(newest Token) {
	s.memory.appended(newest)
	s.mu.Lock()
	defer s.mu.Unlock()
	if newest.Position <= s.head {
		return
	}
	s.head = newest.Position
	close(s.next)
	s.next = make(chan struct{})
}

// Wake closes the channel of Committed although this process committed nothing, so that whoever follows the log looks at it:
// somebody heard that another process did. What was heard is not believed, so the position stays as it is. It may be called
// by any goroutine.
func (s *Store) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.next)
	s.next = make(chan struct{})
}
