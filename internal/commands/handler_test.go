package commands_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/pgtest"
)

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	rejection, ok := errors.AsType[*commands.Rejection](err)
	if !ok || rejection.Code != code {
		t.Fatalf("got %v, want the refusal %s", err, code)
	}
}

func TestNoUpdateIsLostAmongGoroutinesAndProcesses(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	one, store := open(t, pool, commands.Config{Attempts: 100})
	two, _ := open(t, pool, commands.Config{Attempts: 100, CacheSize: -1})
	stream := newAccount()
	mustHandle(t, one, stream, deposit{Amount: 20}, commands.Call{})

	var group errgroup.Group
	var taken atomic.Int64
	for i := range 16 {
		h := []*handler{one, two}[i%2]
		group.Go(func() error {
			for range 4 {
				_, err := h.Handle(t.Context(), stream, withdraw{Amount: 1}, commands.Call{})
				if err == nil {
					taken.Add(1)
				} else if r, ok := errors.AsType[*commands.Rejection](err); !ok || r.Code != codeOverdrawn {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if left, events := balance(t, store, stream); taken.Load() != 20 || left != 0 || events != 21 {
		t.Fatalf("%d withdrawals, %d left, %d events", taken.Load(), left, events)
	}
}

func TestRefusalFromAnOldStateIsJudgedAgain(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	one, _ := open(t, pool, commands.Config{})
	two, _ := open(t, pool, commands.Config{})
	stream := newAccount()
	mustHandle(t, one, stream, deposit{Amount: 1}, commands.Call{})
	mustHandle(t, two, stream, deposit{Amount: 9}, commands.Call{})

	if got := mustHandle(t, one, stream, withdraw{Amount: 10}, commands.Call{}); got.Version != 3 {
		t.Fatalf("got %+v", got)
	}
	// Two still believes in ten: what would append is checked by the log, and answered anew.
	_, err := two.Handle(t.Context(), stream, withdraw{Amount: 10}, commands.Call{})
	wantCode(t, err, codeOverdrawn)
	// Settling needs no event at zero; one's kept state is at zero, the log's is not.
	mustHandle(t, two, stream, deposit{Amount: 5}, commands.Call{})
	_, err = one.Handle(t.Context(), stream, settle{}, commands.Call{})
	wantCode(t, err, codeOverdrawn)
}

func TestExpectedVersionIsNeverTriedAgain(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	one, store := open(t, pool, commands.Config{})
	two, _ := open(t, pool, commands.Config{})
	stream := newAccount()
	mustHandle(t, one, stream, deposit{Amount: 1}, commands.Call{ExpectedVersion: version(0)})
	mustHandle(t, two, stream, deposit{Amount: 1}, commands.Call{ExpectedVersion: version(1)})

	for expected, reason := range map[int64]string{1: "one's kept state", 0: "the past", 7: "the future"} {
		_, err := one.Handle(t.Context(), stream, deposit{Amount: 1}, commands.Call{ExpectedVersion: version(expected)})
		conflict, ok := errors.AsType[*eventstore.ConflictError](err)
		if !ok || conflict.Actual != 2 || conflict.Expected != eventstore.Exact(expected) {
			t.Errorf("%s: got %v", reason, err)
		}
	}
	// A version that is not the stream's comes before the rule that refuses as well.
	_, err := one.Handle(t.Context(), stream, withdraw{Amount: 99}, commands.Call{ExpectedVersion: version(1)})
	if _, ok := errors.AsType[*eventstore.ConflictError](err); !ok {
		t.Errorf("got %v", err)
	}
	mustHandle(t, one, stream, deposit{Amount: 1}, commands.Call{ExpectedVersion: version(2)})
	if _, events := balance(t, store, stream); events != 3 {
		t.Fatalf("%d events", events)
	}
}

// Every attempt collides: Decide itself, where the test steps in, has another process append first.
func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	other, _ := open(t, pool, commands.Config{})
	stream := newAccount()
	judged := 0
	hindered := account()
	hindered.Decide = func(balance int, cmd command) ([]accountEvent, error) {
		judged++
		mustHandle(t, other, stream, deposit{Amount: 1}, commands.Call{})
		return decide(balance, cmd)
	}
	h := commands.NewHandler(openStore(t, pool), hindered, commands.Config{Attempts: 3})
	_, err := h.Handle(t.Context(), stream, deposit{Amount: 1}, commands.Call{})
	if _, ok := errors.AsType[*eventstore.ConflictError](err); !ok || judged != 3 {
		t.Fatalf("judged %d times, got %v", judged, err)
	}
}

func TestTheSameCommandTwiceHasOneEffectAndOneReceipt(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	one, store := open(t, pool, commands.Config{})
	two, _ := open(t, pool, commands.Config{CacheSize: -1})
	stream := newAccount()
	mustHandle(t, one, stream, deposit{Amount: 5}, commands.Call{})
	call := commands.Call{CommandID: "c-1", Who: identity.Identity{Subject: "ada"}}
	first := mustHandle(t, one, stream, withdraw{Amount: 5}, call)
	if first.Duplicate || first.Version != 2 || first.CommandID != "c-1" {
		t.Fatalf("got %+v", first)
	}
	first.Duplicate = true
	again := func(why string) {
		t.Helper()
		for _, h := range []*handler{one, two} {
			if got := mustHandle(t, h, stream, withdraw{Amount: 5}, call); got != first {
				t.Errorf("%s: got %+v, want %+v", why, got, first)
			}
		}
		with := call
		with.ExpectedVersion = version(1)
		if got := mustHandle(t, two, stream, withdraw{Amount: 5}, with); got != first {
			t.Errorf("%s, with the version of then: got %+v, want %+v", why, got, first)
		}
	}
	again("the state would refuse now")
	mustHandle(t, two, stream, deposit{Amount: 50}, commands.Call{})
	again("the state would accept again")
	if left, events := balance(t, store, stream); left != 50 || events != 3 {
		t.Fatalf("%d left, %d events", left, events)
	}

	_, err := one.Handle(t.Context(), stream, withdraw{Amount: 6}, call)
	if _, ok := errors.AsType[*eventstore.CommandIDReusedError](err); !ok {
		t.Errorf("another input: got %v", err)
	}
	_, err = one.Handle(t.Context(), stream, withdraw{Amount: 600}, call)
	if _, ok := errors.AsType[*eventstore.CommandIDReusedError](err); !ok {
		t.Errorf("another input, refused: got %v", err)
	}
	_, err = one.Handle(t.Context(), newAccount(), withdraw{Amount: 5}, call)
	if _, ok := errors.AsType[*eventstore.CommandIDReusedError](err); !ok {
		t.Errorf("another stream: got %v", err)
	}
	mustHandle(t, one, stream, withdraw{Amount: 5}, commands.Call{CommandID: "c-1", Who: identity.Identity{Subject: "bob"}})
}

// A duplicate's receipt is older than the state that was decided on; it must not become the kept state's version.
func TestDuplicateDoesNotSpoilTheKeptState(t *testing.T) {
	t.Parallel()
	h, store := openOne(t)
	stream := newAccount()
	call := commands.Call{CommandID: "c-1"}
	mustHandle(t, h, stream, deposit{Amount: 1}, call)
	mustHandle(t, h, stream, deposit{Amount: 1}, commands.Call{})
	mustHandle(t, h, stream, deposit{Amount: 1}, call)
	if got := mustHandle(t, h, stream, withdraw{Amount: 2}, commands.Call{ExpectedVersion: version(2)}); got.Version != 3 {
		t.Fatalf("got %+v", got)
	}
	_, err := h.Handle(t.Context(), stream, withdraw{Amount: 1}, commands.Call{})
	wantCode(t, err, codeOverdrawn)
	if left, _ := balance(t, store, stream); left != 0 {
		t.Fatalf("%d left", left)
	}
}

func TestSuccessWithoutEvents(t *testing.T) {
	t.Parallel()
	h, store := openOne(t)
	stream := newAccount()
	if got := mustHandle(t, h, stream, settle{}, commands.Call{}); got != (eventstore.Receipt{Stream: stream}) {
		t.Errorf("a stream without events: got %+v", got)
	}
	mustHandle(t, h, stream, deposit{Amount: 1}, commands.Call{})
	last := mustHandle(t, h, stream, withdraw{Amount: 1}, commands.Call{})
	mustHandle(t, h, newAccount(), deposit{Amount: 1}, commands.Call{})
	if got := mustHandle(t, h, stream, settle{}, commands.Call{}); got != last {
		t.Errorf("got %+v, want %+v", got, last)
	}

	call := commands.Call{CommandID: "c-1"}
	first := mustHandle(t, h, stream, settle{}, call)
	if first.Version != 2 || first.Duplicate {
		t.Errorf("got %+v", first)
	}
	mustHandle(t, h, stream, deposit{Amount: 1}, commands.Call{})
	first.Duplicate = true
	if got := mustHandle(t, h, stream, settle{}, call); got != first {
		t.Errorf("got %+v, want %+v", got, first)
	}
	if _, events := balance(t, store, stream); events != 3 {
		t.Errorf("%d events", events)
	}
}

func TestRefusalsStoreNothing(t *testing.T) {
	t.Parallel()
	h, _ := openOne(t)
	stream, call := newAccount(), commands.Call{CommandID: "c-1"}
	_, err := h.Handle(t.Context(), stream, withdraw{Amount: 1}, call)
	wantCode(t, err, codeOverdrawn)
	mustHandle(t, h, stream, deposit{Amount: 1}, commands.Call{})
	if got := mustHandle(t, h, stream, withdraw{Amount: 1}, call); got.Duplicate || got.Version != 2 {
		t.Fatalf("got %+v", got)
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	h, store := openOne(t)
	call := commands.Call{CommandID: "c-1"}
	stream := newAccount()
	first, err := h.Create(t.Context(), stream, deposit{Amount: 1}, call)
	if err != nil || first.Stream != stream || first.Version != 1 {
		t.Fatalf("got %+v, %v", first, err)
	}
	second, err := h.Create(t.Context(), newAccount(), deposit{Amount: 1}, call)
	if err != nil || second.Stream != stream || second.Token != first.Token || !second.Duplicate {
		t.Fatalf("a repeat with a fresh name: got %+v, %v", second, err)
	}
	_, err = h.Create(t.Context(), stream, deposit{Amount: 1}, commands.Call{})
	if _, ok := errors.AsType[*eventstore.ConflictError](err); !ok {
		t.Errorf("a stream that exists: got %v", err)
	}
	_, err = h.Create(t.Context(), newAccount(), withdraw{Amount: 1}, commands.Call{})
	wantCode(t, err, codeOverdrawn)
	if left, events := balance(t, store, stream); left != 1 || events != 1 {
		t.Fatalf("%d left, %d events", left, events)
	}
}

func TestTakenClaimIsRefusedInTheModelsWords(t *testing.T) {
	t.Parallel()
	h, _ := openOne(t)
	owner, other := newAccount(), newAccount()
	call := commands.Call{CommandID: "c-1"}
	mustHandle(t, h, owner, name{Name: "savings"}, call)
	_, err := h.Handle(t.Context(), other, name{Name: "savings"}, commands.Call{CommandID: "c-2"})
	wantCode(t, err, codeNameTaken)
	taken, ok := errors.AsType[*eventstore.ClaimTakenError](err)
	if !ok || taken.Owner != owner {
		t.Fatalf("the cause is %v", err)
	}
	if got := mustHandle(t, h, owner, name{Name: "savings"}, call); !got.Duplicate {
		t.Fatalf("got %+v", got)
	}
}

func TestStreamsOfOthersAreNotTouched(t *testing.T) {
	t.Parallel()
	h, store := openOne(t)
	if _, err := store.Append(t.Context(), eventstore.Request{
		Stream: "other-1", Events: []eventstore.Payload{foreign{}},
	}); err != nil {
		t.Fatal(err)
	}
	for _, stream := range []string{"other-1", "account", "account-", "", "account-\x00", "account-\xff"} {
		_, err := h.Handle(t.Context(), stream, withdraw{Amount: 1}, commands.Call{CommandID: "c"})
		wantCode(t, err, codeOverdrawn)
		for _, carryOut := range []func(context.Context, string, command, commands.Call) (eventstore.Receipt, error){
			h.Handle, h.Create,
		} {
			if _, err := carryOut(t.Context(), stream, deposit{Amount: 1}, commands.Call{}); err == nil {
				t.Errorf("%q was appended to", stream)
			}
		}
	}
	mixed := newAccount()
	if _, err := store.Append(t.Context(), eventstore.Request{Stream: mixed, Events: []eventstore.Payload{foreign{}}}); err != nil {
		t.Fatal(err)
	}
	_, err := h.Handle(t.Context(), mixed, deposit{Amount: 1}, commands.Call{})
	if err == nil || !strings.Contains(err.Error(), "foreign.happened") {
		t.Errorf("an event of another model: got %v", err)
	}
}

func TestMetadataTellsOnWhoseBehalf(t *testing.T) {
	t.Parallel()
	h, store := openOne(t)
	receipt := mustHandle(t, h, newAccount(), deposit{Amount: 1}, commands.Call{
		CommandID: "c-1", Who: identity.Identity{Subject: "ada", Roles: []string{"staff"}}, CorrelationID: "request", CausationID: "cause",
		Trace: eventstore.Trace{Parent: "00-1", State: "a=1"},
	})
	e, _, err := store.EventAt(t.Context(), receipt.Position())
	if err != nil {
		t.Fatal(err)
	}
	want := eventstore.Metadata{
		CommandID: "c-1", Actor: "ada", Roles: []string{"staff"}, CorrelationID: "request", CausationID: "cause",
		Trace: eventstore.Trace{Parent: "00-1", State: "a=1"},
	}
	if got, err := e.ParseMetadata(); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestCommandsOnOneStreamWaitInABoundedQueue(t *testing.T) {
	t.Parallel()
	inside, leave := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow := account()
	slow.Decide = func(balance int, cmd command) ([]accountEvent, error) {
		once.Do(func() { close(inside) })
		<-leave
		return decide(balance, cmd)
	}
	h := commands.NewHandler(openStore(t, pgtest.Pool(t)), slow, commands.Config{MaxWaiting: 1})
	stream := newAccount()
	first := make(chan error, 1)
	go func() {
		_, err := h.Handle(context.Background(), stream, deposit{Amount: 1}, commands.Call{})
		first <- err
	}()
	<-inside
	_, err := h.Handle(t.Context(), stream, deposit{Amount: 1}, commands.Call{})
	if _, ok := errors.AsType[*eventstore.OverloadedError](err); !ok {
		t.Errorf("got %v", err)
	}
	close(leave)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	mustHandle(t, h, stream, deposit{Amount: 1}, commands.Call{})
}
