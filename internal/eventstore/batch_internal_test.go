package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/headrace/headrace/internal/pgtest"
)

// number is an event whose JSON a test chooses.
type number struct{ raw string }

func (number) EventType() string { return "number.seen" }

func (n number) MarshalJSON() ([]byte, error) { return []byte(n.raw), nil }

func (n *number) UnmarshalJSON(data []byte) error {
	n.raw = string(data)
	return nil
}

func openInternal(t *testing.T, cfg Config) *Store {
	t.Helper()
	registry, err := NewRegistry(Define[number](1))
	if err != nil {
		t.Fatal(err)
	}
	store, err := Open(t.Context(), pgtest.Pool(t), registry, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close(context.Background()) })
	return store
}

func numbered(stream string, expected ExpectedVersion, raw ...string) Request {
	r := Request{Stream: stream, Expected: expected}
	for _, text := range raw {
		r.Events = append(r.Events, number{text})
	}
	return r
}

// queued puts requests into the queue of an appender that does not run yet.
func queued(t *testing.T, s *Store, requests ...Request) (*appender, []*pending) {
	t.Helper()
	a := newAppender(s)
	waiters := make([]*pending, len(requests))
	for i := range requests {
		p, err := s.prepare(&requests[i])
		if err != nil {
			t.Fatal(err)
		}
		waiters[i] = &pending{prepared: p, answer: make(chan answer, 1)}
		if err := a.enqueue(waiters[i]); err != nil {
			t.Fatal(err)
		}
	}
	return a, waiters
}

// runToEnd lets the appender send all that waits, and collects the answers.
func runToEnd(a *appender, waiters []*pending) []answer {
	a.close()
	a.run()
	answers := make([]answer, len(waiters))
	for i, p := range waiters {
		answers[i] = <-p.answer
	}
	return answers
}

func TestAStaleRequestRefusesItselfAlone(t *testing.T) {
	t.Parallel()
	for name, expected := range map[string]ExpectedVersion{"exact": 0, "any": Any} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openInternal(t, Config{})
			a, waiters := queued(t, s,
				numbered("n-1", expected, "1", "2"), numbered("n-2", Exact(7), "3"), numbered("n-3", NoStream, "4"),
				numbered("n-4", StreamExists, "5"), numbered("n-5", NoStream, "6", "7", "8"))
			answers := runToEnd(a, waiters)
			for i, position := range []int64{2, 0, 3, 0, 6} {
				got := answers[i]
				var conflict *ConflictError
				if position == 0 && (!errors.As(got.err, &conflict) || conflict.Actual != 0) {
					t.Errorf("request %d: got %+v, want a conflict", i, got)
				}
				if position > 0 && (got.err != nil || got.receipt.Position() != position) {
					t.Errorf("request %d: got %+v, want position %d", i, got, position)
				}
			}
		})
	}
}

func TestABatchHoldsEachKeyOnce(t *testing.T) {
	t.Parallel()
	s := openInternal(t, Config{})
	withClaim := func(stream string) Request {
		r := numbered(stream, NoStream, "1")
		r.Claim = []string{"k"}
		return r
	}
	withID := func(stream string) Request {
		r := numbered(stream, NoStream, "1")
		r.CommandID = CommandID{Actor: "ada", ID: "same"}
		return r
	}
	a, waiters := queued(t, s,
		numbered("n-1", NoStream, "1"), numbered("n-1", Exact(1), "2"), numbered("n-1", Exact(2), "3"),
		withClaim("n-2"), withClaim("n-3"), withID("n-4"), withID("n-5"), numbered("n-6", NoStream, "1"))
	for i, streams := range []string{"[n-1 n-2 n-4 n-6]", "[n-1 n-3 n-5]", "[n-1]", "[]"} {
		a.mu.Lock()
		batch := a.pick(nil)
		a.mu.Unlock()
		got := []string{}
		for _, p := range batch {
			got = append(got, p.parts[0].stream)
		}
		if fmt.Sprint(got) != streams {
			t.Errorf("batch %d holds %v, want %s", i, got, streams)
		}
		c := &committer{store: s}
		c.commit(batch)
		c.disconnect()
		a.done(batch)
	}
	var taken *ClaimTakenError
	for i, p := range waiters {
		got := <-p.answer
		switch i {
		case 4:
			if !errors.As(got.err, &taken) || taken.Owner != "n-2" {
				t.Errorf("the second claim: got %+v", got)
			}
		case 6:
			if got.err != nil || !got.receipt.Duplicate || got.receipt.Stream != "n-4" {
				t.Errorf("the second use of a command id: got %+v", got)
			}
		default:
			if got.err != nil || got.receipt.Duplicate {
				t.Errorf("request %d: got %+v", i, got)
			}
		}
	}
}

func TestOnlyTheGuiltyRequestOfAFailedBatchFails(t *testing.T) {
	t.Parallel()
	s := openInternal(t, Config{})
	// The number is JSON, and too large for Postgres.
	guilty := "1e200000"
	if !json.Valid([]byte(guilty)) {
		t.Fatal("the test's number is not JSON")
	}
	a, waiters := queued(t, s,
		numbered("n-1", NoStream, "1"), numbered("n-2", NoStream, guilty), numbered("n-3", NoStream, "3"))
	answers := runToEnd(a, waiters)
	var unknown *UnknownOutcomeError
	if answers[0].err != nil || answers[2].err != nil || answers[1].err == nil || errors.As(answers[1].err, &unknown) {
		t.Fatalf("got %+v", answers)
	}
	if answers[2].receipt.Position() != 2 {
		t.Fatalf("got %+v", answers[2])
	}
}

func TestAFullQueuePushesBackAndACallerThatGaveUpIsDropped(t *testing.T) {
	t.Parallel()
	s := openInternal(t, Config{QueueRequests: 2})
	a, waiters := queued(t, s, numbered("n-1", NoStream, "1"))
	p, err := s.prepare(&Request{Stream: "n-2", Events: []Payload{number{"1"}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := a.append(ctx, p)
		gone <- err
	}()
	// The queue is full once the caller's request is in it.
	for full := false; !full; {
		a.mu.Lock()
		full = len(a.queue) == 2
		a.mu.Unlock()
	}
	var overloaded *OverloadedError
	if err := a.enqueue(&pending{prepared: p}); !errors.As(err, &overloaded) || overloaded.Queued != 2 {
		t.Errorf("got %v", err)
	}
	giveUp()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := runToEnd(a, waiters)[0]; got.err != nil {
		t.Error(got.err)
	}
	if version, err := s.StreamVersion(t.Context(), "n-2"); err != nil || version != 0 {
		t.Errorf("a dropped request was written: version %d, %v", version, err)
	}
	if err := a.enqueue(&pending{prepared: p}); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestACallerThatGivesUpAfterSendingLearnsNothingAndHurtsNobody(t *testing.T) {
	t.Parallel()
	s := openInternal(t, Config{})
	tx, err := s.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select from log for no key update"); err != nil {
		t.Fatal(err)
	}
	a, _ := queued(t, s)
	r := numbered("n-1", NoStream, "1")
	r.CommandID = CommandID{ID: "c"}
	p, err := s.prepare(&r)
	if err != nil {
		t.Fatal(err)
	}
	ctx, giveUp := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := a.append(ctx, p)
		gone <- err
	}()
	c := &committer{store: s}
	defer c.disconnect()
	batch := a.take(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.commit(batch)
	}()
	giveUp()
	var unknown *UnknownOutcomeError
	if err := <-gone; !errors.As(err, &unknown) || unknown.CommandID != "c" {
		t.Fatalf("got %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-done
	if c.broken() {
		t.Error("the caller's context broke the shared connection")
	}
	if receipt, found, err := s.FindReceipt(t.Context(), r.CommandID); err != nil || !found || receipt.Position() != 1 {
		t.Errorf("got %+v, %v, %v", receipt, found, err)
	}
}
