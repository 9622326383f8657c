package commands_test

import (
	"errors"
	"reflect"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/pgtest"
)

// contents is everything that an append could have changed, row for row, with the transaction that wrote each row.
func contents(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	var all string
	err := pool.QueryRow(t.Context(), `select concat_ws('#',
		(select string_agg(e.xmin::text || e::text, ',' order by position) from events e),
		(select string_agg(c.xmin::text || c::text, ',' order by key) from claims c),
		(select string_agg(r.xmin::text || r::text, ',' order by actor, command_id) from receipts r),
		(select string_agg(o.xmin::text || o::text, ',' order by id) from outbox o),
		(select string_agg(l.ctid::text || l::text, ',') from log l))`).Scan(&all)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Dry runs of many at once, of commands that would be accepted, refused, repeated and taken, leave nothing behind.
func TestDryRunsStoreNothing(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	h, _ := open(t, pool, commands.Config{})
	streams := []string{newAccount(), newAccount(), newAccount()}
	for i, stream := range streams {
		mustHandle(t, h, stream, deposit{Amount: 10}, commands.Call{CommandID: stream})
		mustHandle(t, h, stream, name{Name: stream[:20+i]}, commands.Call{})
	}
	before := contents(t, pool)
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			for i := range 25 {
				stream := streams[(w+i)%len(streams)]
				for _, cmd := range []command{
					deposit{Amount: i}, withdraw{Amount: 100}, settle{}, name{Name: "new"}, name{Name: streams[0][:20]},
				} {
					call := commands.Call{}
					if i%2 == 0 {
						call.CommandID = "dry"
					}
					if _, err := h.DryRun(t.Context(), stream, cmd, call); err != nil && !isRefusal(err) {
						t.Error(err)
					}
				}
				if _, err := h.DryCreate(t.Context(), newAccount(), name{Name: "fresh"}, commands.Call{CommandID: "fresh"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if after := contents(t, pool); after != before {
		t.Errorf("dry runs changed\n%s\nto\n%s", before, after)
	}
	// What comes next is decided as if nothing had been tried.
	for _, stream := range streams {
		if receipt := mustHandle(t, h, stream, withdraw{Amount: 10}, commands.Call{}); receipt.Version != 3 {
			t.Errorf("got %+v", receipt)
		}
	}
}

func isRefusal(err error) bool {
	_, rejected := errors.AsType[*commands.Rejection](err)
	return rejected
}

func TestADryRunSaysWhatItWasJudgedOn(t *testing.T) {
	t.Parallel()
	h, store := openOne(t)
	stream := newAccount()
	mustHandle(t, h, newAccount(), deposit{Amount: 1}, commands.Call{})
	mustHandle(t, h, stream, deposit{Amount: 10}, commands.Call{})
	dry, err := h.DryRun(t.Context(), stream, withdraw{Amount: 4}, commands.Call{Who: identity.Identity{Subject: "ada"}, CommandID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	if dry.AsOf != 2 || dry.Judged != 1 || dry.Version() != 2 || len(dry.Events) != 1 {
		t.Fatalf("got %+v", dry)
	}
	would := dry.Events[0]
	mustHandle(t, h, stream, withdraw{Amount: 4}, commands.Call{Who: identity.Identity{Subject: "ada"}, CommandID: "c"})
	did, _, err := store.EventAt(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if would.RecordedAt.After(did.RecordedAt) {
		t.Errorf("recorded at %s, before %s", did.RecordedAt, would.RecordedAt)
	}
	would.ID, would.RecordedAt = did.ID, did.RecordedAt
	for _, e := range []*eventstore.Event{&would, &did} {
		payload, err := store.Registry().Decode(*e)
		if err != nil || payload.(withdrawn).Amount != 4 {
			t.Fatal(payload, err)
		}
		metadata, err := e.ParseMetadata()
		if err != nil || metadata.Actor != "ada" || metadata.CommandID != "c" {
			t.Fatal(metadata, err)
		}
		e.Data, e.Metadata = nil, nil // equal as JSON
	}
	if !reflect.DeepEqual(would, did) {
		t.Errorf("would be %+v, is %+v", would, did)
	}
}

func TestADryRunAnswersAsTheCommandWould(t *testing.T) {
	t.Parallel()
	h, _ := openOne(t)
	stream, other := newAccount(), newAccount()
	ada := commands.Call{Who: identity.Identity{Subject: "ada"}, CommandID: "c"}
	first := mustHandle(t, h, stream, deposit{Amount: 10}, ada)
	mustHandle(t, h, other, name{Name: "n"}, commands.Call{})
	for what, c := range map[string]struct {
		stream string
		cmd    command
		call   commands.Call
	}{
		"accepted":        {stream, withdraw{Amount: 1}, commands.Call{}},
		"refused":         {stream, withdraw{Amount: 11}, commands.Call{}},
		"nothing to do":   {newAccount(), settle{}, commands.Call{}},
		"wrong version":   {stream, deposit{Amount: 1}, commands.Call{ExpectedVersion: version(7)}},
		"taken":           {stream, name{Name: "n"}, commands.Call{}},
		"taken by itself": {other, name{Name: "n"}, commands.Call{}},
		"reused":          {stream, deposit{Amount: 11}, ada},
		"foreign":         {"cart-1", withdraw{Amount: 11}, commands.Call{}},
		"too large":       {stream, name{Name: string(make([]byte, 300))}, commands.Call{}},
	} {
		dry, dryErr := h.DryRun(t.Context(), c.stream, c.cmd, c.call)
		receipt, err := h.Handle(t.Context(), c.stream, c.cmd, c.call)
		if (err == nil) != (dryErr == nil) || (err != nil && reflect.TypeOf(root(err)) != reflect.TypeOf(root(dryErr))) {
			t.Errorf("%s: would be %v, is %v", what, dryErr, err)
		}
		if err != nil && root(err).Error() != root(dryErr).Error() {
			t.Errorf("%s: would say %q, says %q", what, root(dryErr), root(err))
		}
		if err == nil && receipt.Version != dry.Version() {
			t.Errorf("%s: would be version %d, is %d", what, dry.Version(), receipt.Version)
		}
		if dry.AsOf == 0 {
			t.Errorf("%s: judged on nothing", what)
		}
	}
	again, err := h.DryRun(t.Context(), stream, deposit{Amount: 10}, ada)
	if err != nil || again.Duplicate == nil || again.Duplicate.Token != first.Token || len(again.Events) != 0 {
		t.Errorf("a repeated command: %+v, %v", again, err)
	}
	if _, err := h.DryCreate(t.Context(), stream, deposit{Amount: 1}, commands.Call{}); !errors.As(err, new(*eventstore.ConflictError)) {
		t.Errorf("a stream that is there is made again: %v", err)
	}
	repeated, err := h.DryCreate(t.Context(), newAccount(), deposit{Amount: 10}, commands.Call{})
	if err != nil || repeated.Judged != 0 || repeated.Version() != 1 {
		t.Errorf("a new stream: %+v, %v", repeated, err)
	}
}

// root is the innermost error but for what a refusal names as its cause.
func root(err error) error {
	for {
		if _, refused := err.(*commands.Rejection); refused {
			return err
		}
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
