package eventstore

import (
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
