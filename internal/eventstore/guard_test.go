package eventstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
)

func TestEventsCannotBeChanged(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	store := open(t, pool, eventstore.Config{})
	if _, err := store.Append(t.Context(), eventstore.Request{Stream: "note-1", Events: notes("a")}); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"update events set version = 2", "delete from events", "truncate events"} {
		if _, err := pool.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "insert-only") {
			t.Errorf("%s: got %v", sql, err)
		}
	}
}

func TestOtherIsolationLevelsAreRefused(t *testing.T) {
	t.Parallel()
	config := pgtest.Pool(t).Config()
	for _, level := range []string{"repeatable read", "serializable"} {
		config.ConnConfig.RuntimeParams["default_transaction_isolation"] = level
		pool := poolOf(t, config)
		if _, err := eventstore.Open(t.Context(), pool, nil, eventstore.Config{}); err == nil || !strings.Contains(err.Error(), level) {
			t.Errorf("%s: got %v", level, err)
		}
	}
	store := open(t, pgtest.Pool(t), eventstore.Config{})
	_, err := store.AppendIn(t.Context(), func(tx pgx.Tx) (eventstore.Request, error) {
		_, err := tx.Exec(t.Context(), "set transaction isolation level serializable")
		return eventstore.Request{Stream: "note-1", Events: notes("a")}, err
	})
	if err == nil {
		t.Error("a function of AppendIn changed the isolation level")
	}
}

func TestAppendInIsOneTransaction(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	store := open(t, pool, eventstore.Config{})
	if _, err := pool.Exec(t.Context(), "create table aside (n int)"); err != nil {
		t.Fatal(err)
	}
	request := func(expected eventstore.ExpectedVersion, id string) eventstore.Request {
		return eventstore.Request{
			Stream: "note-1", Expected: expected, Events: notes("a"),
			CommandID: eventstore.CommandID{Actor: "ada", ID: id},
		}
	}
	appendIn := func(r eventstore.Request, failure error) (eventstore.Receipt, error) {
		return store.AppendIn(t.Context(), func(tx pgx.Tx) (eventstore.Request, error) {
			if _, err := tx.Exec(t.Context(), "insert into aside values (1)"); err != nil {
				return r, err
			}
			return r, failure
		})
	}
	_, committed := store.Committed()
	first, err := appendIn(request(eventstore.NoStream, "1"), nil)
	if err != nil || first.Version != 1 {
		t.Fatalf("got %+v, %v", first, err)
	}
	<-committed
	var conflict *eventstore.ConflictError
	if _, err := appendIn(request(eventstore.NoStream, "2"), nil); !errors.As(err, &conflict) || conflict.Actual != 1 {
		t.Errorf("got %v", err)
	}
	if again, err := appendIn(request(eventstore.NoStream, "1"), nil); err != nil || !again.Duplicate || again.Token != first.Token {
		t.Errorf("got %+v, %v", again, err)
	}
	own := errors.New("the function's own")
	if _, err := appendIn(request(eventstore.Any, "3"), own); !errors.Is(err, own) {
		t.Errorf("got %v", err)
	}
	var invalid *eventstore.InvalidRequestError
	if _, err := appendIn(eventstore.Request{Stream: "note-1", Claim: []string{"k"}}, nil); !errors.As(err, &invalid) {
		t.Errorf("got %v", err)
	}
	rows, events := 0, 0
	if err := pool.QueryRow(context.Background(), "select (select count(*) from aside), (select count(*) from events)").Scan(&rows, &events); err != nil {
		t.Fatal(err)
	}
	if rows != 1 || events != 1 {
		t.Errorf("%d rows and %d events were written, want one of each", rows, events)
	}
}

func TestLimitsAreToldBeforePostgresSeesThem(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Pool(t), eventstore.Config{MaxEvents: 2, MaxEventBytes: 100, MaxNameBytes: 20})
	for field, r := range map[string]eventstore.Request{
		"events":         {Stream: "s", Events: notes("a", "b", "c")},
		"events[1]":      {Stream: "s", Events: notes("a", strings.Repeat("b", 100))},
		"stream":         {Stream: strings.Repeat("s", 21), Events: notes("a")},
		"also[0].stream": {Stream: "s", Events: notes("a"), Also: []eventstore.StreamAppend{{Stream: "s", Events: notes("a")}}},
		"commandId":      {Stream: "s", Events: notes("a"), CommandID: eventstore.CommandID{ID: "a\x00"}},
		"claim":          {Stream: "s", Events: notes("a"), Claim: []string{"\xff"}},
		"expected":       {Stream: "s", Expected: -3, Events: notes("a")},
		"events[0]":      {Stream: "s", Events: notes("a\x00")},
		"metadata":       {Stream: "s", Events: notes("a"), Metadata: eventstore.Metadata{Actor: "\x00"}},
	} {
		var invalid *eventstore.InvalidRequestError
		if _, err := store.Append(t.Context(), r); !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestTokensTellHistoriesApart(t *testing.T) {
	t.Parallel()
	store := open(t, pgtest.Pool(t), eventstore.Config{})
	receipt, err := store.Append(t.Context(), eventstore.Request{Stream: "note-1", Events: notes("a")})
	if err != nil {
		t.Fatal(err)
	}
	good := receipt.Token
	for _, token := range []eventstore.Token{good, {}} {
		parsed, err := eventstore.ParseToken(token.String())
		if err != nil || parsed != token || store.CheckToken(t.Context(), token) != nil {
			t.Errorf("%+v: got %+v, %v, %v", token, parsed, err, store.CheckToken(t.Context(), token))
		}
	}
	beyond, another, otherLog := good, good, good
	beyond.Position, another.EventID[0], otherLog.LogID[0] = 2, another.EventID[0]+1, otherLog.LogID[0]+1
	var beyondHead *eventstore.BeyondHeadError
	if err := store.CheckToken(t.Context(), beyond); !errors.As(err, &beyondHead) || beyondHead.Head != 1 {
		t.Errorf("got %v", err)
	}
	for _, token := range []eventstore.Token{another, otherLog} {
		var diverged *eventstore.DivergedError
		if err := store.CheckToken(t.Context(), token); !errors.As(err, &diverged) {
			t.Errorf("got %v", err)
		}
	}
	for _, text := range []string{"", "x", good.String() + "A", "B" + good.String()[1:]} {
		if _, err := eventstore.ParseToken(text); err == nil {
			t.Errorf("%q is no token", text)
		}
	}
}
