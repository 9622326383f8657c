package eventstore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/pgtest"
)

// A pool that others use up stops no append.
func TestAnExhaustedPoolStopsNoAppend(t *testing.T) {
	t.Parallel()
	config := pgtest.Pool(t).Config()
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	registry, _ := NewRegistry(Define[number](1))
	s, err := Open(t.Context(), pool, registry, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	held, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	_, err = s.Append(t.Context(), numbered("n-1", Exact(5), "1"))
	var conflict *ConflictError
	if !errors.As(err, &conflict) || conflict.Actual != 0 {
		t.Errorf("got %v", err)
	}
}

func TestCloseAtItsDeadlineAnswersWhatWaits(t *testing.T) {
	t.Parallel()
	s := openInternal(t, Config{})
	tx, err := s.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), "select from log for no key update"); err != nil {
		t.Fatal(err)
	}
	answers := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := s.Append(t.Context(), numbered("n-1", Any, "1"))
			answers <- err
		}()
	}
	for waiting := false; !waiting; {
		s.appender.mu.Lock()
		waiting = len(s.appender.queue) == 1 && len(s.appender.busy) == 1
		s.appender.mu.Unlock()
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	select {
	case err := <-answers:
		if !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the request that was not sent got no answer after Close returned")
	}
	_ = tx.Rollback(context.Background())
	<-answers
}

func TestAClosedStoreRefusesAppendIn(t *testing.T) {
	t.Parallel()
	s := openInternal(t, Config{})
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := s.AppendIn(t.Context(), func(pgx.Tx) (Request, error) { return numbered("n-1", NoStream, "1"), nil })
	if !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestIteratorsStartAnew(t *testing.T) {
	t.Parallel()
	s := openInternal(t, Config{})
	if _, err := s.Append(t.Context(), numbered("n-1", NoStream, "1", "2", "3")); err != nil {
		t.Fatal(err)
	}
	log := s.Log(t.Context(), LogQuery{Limit: 2})
	for round := range 2 {
		n := 0
		for _, err := range log {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 3 {
			t.Errorf("round %d saw %d events", round, n)
		}
	}
}

func TestAnActorWithoutACommandIDIsNoPoison(t *testing.T) {
	t.Parallel()
	s := openInternal(t, Config{})
	r := numbered("n-1", NoStream, "1")
	r.Claim, r.CommandID = []string{"k"}, CommandID{Actor: "a\x00"}
	_, err := s.Append(t.Context(), r)
	var invalid *InvalidRequestError
	if err != nil && !errors.As(err, &invalid) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkPickHot(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				s := &Store{cfg: Config{}.withDefaults()}
				a := newAppender(s)
				for range n {
					a.queue = append(a.queue, &pending{prepared: &prepared{
						request: &Request{},
						parts:   []part{{stream: "hot-0190a000-0000-7000-8000-000000000000"}}, events: make([]encoded, 1),
					}})
				}
				for len(a.queue) > 0 {
					a.done(a.pick(nil))
				}
			}
		})
	}
}
