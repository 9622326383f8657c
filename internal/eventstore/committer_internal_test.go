package eventstore

import (
	"errors"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/pgtest"
)

type rested struct{}

func (rested) EventType() string { return "test.rested" }

func TestAConnectionThatDiedAtRestLeavesNoOutcomeUnknown(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	registry, err := NewRegistry(Define[rested](1))
	if err != nil {
		t.Fatal(err)
	}
	store := newStore(pool, registry, Config{})
	c := &committer{store: store}
	defer c.disconnect()
	send := func() error {
		p, err := store.prepare(&Request{Stream: StreamID("test"), Events: []Payload{rested{}}})
		if err != nil {
			t.Fatal(err)
		}
		answers, err := c.send([]*pending{{prepared: p}})
		if err == nil {
			err = answers[0].err
		}
		return err
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "select pg_terminate_backend($1, 10000)", c.conn.PgConn().PID()); err != nil {
		t.Fatal(err)
	}
	c.looked = time.Now().Add(-2 * lookAgain)
	if err := send(); err != nil {
		t.Fatalf("after a rest: %v", err)
	}
}

// A server that is behind what was seen before is one that another took the place of: whoever can still write to it must not.
func TestAConnectionToAnOlderEpochIsLeft(t *testing.T) {
	t.Parallel()
	s := newStore(pgtest.Pool(t), nil, Config{})
	c := &committer{store: s}
	defer c.disconnect()
	if err := c.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	here := s.here
	epoch, _ := s.Epoch()
	s.note(epoch + 1)
	s.here = place{1, 1}
	c.looked = time.Time{}
	if err := c.connect(t.Context()); !errors.Is(err, errOlder) || !c.broken() {
		t.Errorf("the connection is kept: %v", err)
	}
	if err := s.Review(t.Context()); !errors.Is(err, errOlder) || s.here == here {
		t.Errorf("what the older server says is believed: %v", err)
	}
}
