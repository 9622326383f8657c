package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/pgtest"
)

// cartLog writes a log of carts past the store: n carts, each opened and given an item.
const cartLog = `
insert into events (position, version, recorded_at, id, stream, type, schema_version, data, metadata)
select 2 * i - 1 + v, v + 1, now(), gen_random_uuid(), 'cart-' || lpad(i::text, 8, '0'),
       case v when 0 then 'cart.opened' else 'cart.item_added' end, 1,
       case v when 0 then '{"ownerId": "ada", "currency": "EUR"}'::jsonb
              else '{"sku": "tea", "name": "Tea", "quantity": 1, "unitPrice": {"amount": 450, "currency": "EUR"}}'::jsonb end,
       '{"actor": "ada"}'
from generate_series(1, %d) i cross join generate_series(0, 1) v`

// shop is a migrated database with a log of carts and a serving table that includes it.
func shop(t *testing.T, carts int) {
	t.Helper()
	execute(t, fmt.Sprintf(cartLog, carts))
	if code, _, stderr := projections(t, "rebuild", "cart", "--switch"); code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if code, _, stderr := projections(t, "drop", "cart_v1"); code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
}

func execute(t *testing.T, sql string) {
	t.Helper()
	if _, err := pgtest.Pool(t).Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func projections(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return command(t, append(append([]string{"projections"}, args...), "--database-url", pgtest.URL(t))...)
}

// decode reads the last line of JSON that a command printed.
func decode(t *testing.T, stdout string) (found map[string]any) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &found); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	return found
}

// fields are the names of an object's fields, which are what scripts depend on.
func fields(object any) string {
	names := []string{}
	for name := range object.(map[string]any) {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// The whole way of an operator: fill, compare, switch, go back, drop; each with its JSON and its exit code.
func TestProjectionsCommands(t *testing.T) {
	t.Parallel()
	shop(t, 50)
	code, out, _ := projections(t, "rebuild", "cart", "--json", "--workers", "2")
	expect(t, "rebuild", code, exitDone)
	done := decode(t, out)
	expect(t, "fields", fields(done), "event events eventsPerSecond position replaced resumed seconds serves table view workers")
	expect(t, "event, table, serves", []any{done["event"], done["table"], done["serves"]}, []any{"done", "cart_v1_3", false})
	progress := map[string]any{}
	if err := json.Unmarshal([]byte(strings.SplitN(out, "\n", 2)[0]), &progress); err != nil {
		t.Fatal(err)
	}
	expect(t, "fields", fields(progress), "event events eventsPerSecond head phase position secondsLeft table throttled view workers")

	code, out, _ = projections(t, "diff", "cart", "--json")
	expect(t, "diff of equal tables", code, exitDone)
	expect(t, "fields", fields(decode(t, out)),
		"added changed columns event missing onlyServing onlyTable parked position rows samples serving table view")
	execute(t, `update cart_v1_2 set total = 1 where id = 'cart-00000007'; delete from cart_v1_2 where id = 'cart-00000008';
		update cart_v1_2 set id = 'cart-x' where id = 'cart-00000009'`)
	code, out, _ = projections(t, "diff", "cart", "--json", "--to", "3")
	expect(t, "diff", code, exitDiffers)
	found := decode(t, out)
	expect(t, "rows", []any{found["added"], found["missing"], found["changed"]}, []any{2, 1, 1})
	sample := found["samples"].([]any)[3].(map[string]any)
	expect(t, "sample", fields(sample), "columns events key kind")
	expect(t, "column", sample["columns"], []any{map[string]any{"name": "total", "old": "1", "new": "450"}})
	expect(t, "event", sample["events"].([]any)[0], map[string]any{"position": 14, "stream": "cart-00000007", "version": 2, "type": "cart.item_added"})
	_, out, _ = projections(t, "diff", "cart", "--to", "cart_v1_3")
	for _, said := range []string{"2 added, 1 missing, 1 changed", "changed cart-00000007", "total: 1 -> 450", "event 14: cart.item_added"} {
		if !strings.Contains(out, said) {
			t.Errorf("diff does not say %q: %s", said, out)
		}
	}

	code, out, _ = projections(t, "switch", "cart", "--json")
	expect(t, "switch", code, exitDone)
	expect(t, "replaced", decode(t, out)["replaced"], "cart_v1_2")
	code, out, _ = projections(t, "list", "--json")
	expect(t, "list", code, exitDone)
	var tables []map[string]any
	if err := json.Unmarshal([]byte(out), &tables); err != nil {
		t.Fatal(err)
	}
	states := map[any]any{}
	for _, table := range tables {
		states[table["name"]] = table["state"]
	}
	expect(t, "fields", fields(any(tables[0])), "bytes generation head name position previous rows state version view")
	expect(t, "states", []any{states["cart_v1_2"], states["cart_v1_3"], states["order_v1"]}, []any{"kept", "serving", "serving"})
	code, _, _ = projections(t, "drop", "cart_v1_3")
	expect(t, "drop of what serves", code, exitBusy)
	code, out, stderr := projections(t, "rollback", "cart", "--json")
	expect(t, "rollback "+stderr, code, exitDone)
	done = decode(t, out)
	expect(t, "fields", fields(done), "event events eventsPerSecond position replaced resumed seconds serves table view workers")
	expect(t, "event, table, serves, replaced", []any{done["event"], done["table"], done["serves"], done["replaced"]},
		[]any{"done", "cart_v1_2", true, "cart_v1_3"})
	code, out, _ = projections(t, "drop", "cart_v1_3", "--json")
	expect(t, "drop", code, exitDone)
	expect(t, "fields", fields(decode(t, out)), "checkpoint state")
	for _, args := range [][]string{
		{"rollback", "cart"},
		{"switch", "cart"},
		{"switch", "cart", "--to", "9"},
		{"switch", "cart", "--to", "order_v1"},
		{"rebuild", "karts"},
		{"drop", "events"},
		{"pause", "nothing"},
		{"resume", "cart"},
		{"rebuild", "cart", "--batch=-1"},
		{"diff", "cart", "--chunk", "0"},
	} {
		code, _, stderr = projections(t, args...)
		expect(t, strings.Join(args, " ")+": "+stderr, code, exitUsage)
	}
}

// A view of queued SQL is filled by the same commands, by one worker and with all its indexes from the beginning.
func TestProjectionsOfQueuedSQL(t *testing.T) {
	t.Parallel()
	shop(t, 50)
	code, _, stderr := projections(t, "rebuild", "activity", "--switch")
	expect(t, "rebuild: "+stderr, code, exitDone)
	code, out, stderr := projections(t, "rebuild", "activity", "--json", "--workers", "4", "--batch", "7")
	expect(t, "rebuild: "+stderr, code, exitDone)
	expect(t, "workers", decode(t, out)["workers"], 1)
	code, out, _ = projections(t, "diff", "activity", "--json", "--chunk", "9")
	expect(t, "diff: "+out, []any{code, decode(t, out)["rows"]}, []any{exitDone, 100})
	execute(t, `update activity_v1_2 set summary = 'wrong' where position = 14`)
	_, out, _ = projections(t, "diff", "activity", "--json")
	sample := decode(t, out)["samples"].([]any)[0].(map[string]any)
	expect(t, "the line's event", sample["events"], []any{
		map[string]any{"position": 14, "stream": "cart-00000007", "version": 2, "type": "cart.item_added"},
	})
}

// A rebuild parks as many streams as a server would, and no more.
func TestProjectionsRebuildParksAsServersDo(t *testing.T) {
	t.Parallel()
	shop(t, 50)
	execute(t, `alter table events disable trigger all;
		update events set data = '{"quantity": "many"}' where stream in ('cart-00000007', 'cart-00000008', 'cart-00000009') and version = 2`)
	code, _, stderr := projections(t, "rebuild", "cart", "--parked-streams-max", "2", "--workers", "1")
	expect(t, "one too many: "+stderr, []any{code, strings.Contains(stderr, "cart.item_added")}, []any{exitPoison, true})
	code, _, stderr = projections(t, "rebuild", "cart", "--parked-streams-max", "3")
	expect(t, "going on: "+stderr, code, exitDone)
	var parked int
	if err := pgtest.Pool(t).QueryRow(t.Context(), `select count(*) from parked_streams where checkpoint = 'cart_v1_3'`).Scan(&parked); err != nil {
		t.Fatal(err)
	}
	expect(t, "parked", parked, 3)
	code, _, stderr = projections(t, "rebuild", "cart", "--parked-streams-max", "0")
	expect(t, "none at all: "+stderr, code, exitUsage)
}

// start runs a command of this program as a process of its own.
func start(t *testing.T, args ...string) (cmd *exec.Cmd, stdout *bufio.Scanner, stderr *bytes.Buffer) {
	t.Helper()
	cmd = exec.CommandContext(context.Background(), os.Args[0], args...)
	stderr = &bytes.Buffer{}
	cmd.Env, cmd.Stderr = append(os.Environ(), asProgram+"=1"), stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewScanner(pipe), stderr
}

// hold lets no rebuild of the carts, however quick, get past a cart until the returned function is called: the next table
// has the constraints of the one that serves.
func hold(t *testing.T, cart string) (letGo func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	name := pgx.Identifier{"held at " + cart}.Sanitize()
	execute(t, fmt.Sprintf(`create function %[1]s(id text) returns bool language plpgsql as
			$$ begin if id = '%[2]s' then perform pg_advisory_xact_lock_shared(hashtext('%[2]s')); end if; return true; end $$;
		alter table cart_v1_2 add constraint %[1]s check (%[1]s(id))`, name, cart))
	if _, err := conn.Exec(t.Context(), `select pg_advisory_lock(hashtext($1))`, cart); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A rebuild that is killed at once or asked to stop leaves what serves as it is, and the same command goes on with what is
// filled; in between nothing else may take it, and it can be dropped instead.
func TestProjectionsRebuildIsStoppedAndKilled(t *testing.T) {
	t.Parallel()
	shop(t, 3000)
	args := []string{"projections", "rebuild", "cart", "--json", "--batch", "20", "--workers", "2", "--database-url", pgtest.URL(t)}
	letGo := []func(){hold(t, "cart-00001000"), hold(t, "cart-00002000")}
	for i, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		cmd, lines, stderr := start(t, args...)
		for lines.Scan() {
			if strings.Contains(lines.Text(), `"progress"`) {
				break
			}
		}
		_ = cmd.Process.Signal(signal)
		for lines.Scan() {
		}
		err := cmd.Wait()
		if signal == syscall.SIGINT {
			expect(t, "exit code after Ctrl-C: "+stderr.String(), cmd.ProcessState.ExitCode(), exitStopped)
		} else if err == nil {
			t.Error("it was not killed")
		}
		letGo[i]()
	}
	code, _, stderr := projections(t, "rebuild", "cart")
	expect(t, "while the killed one's lease lasts: "+stderr, code, exitBusy)
	execute(t, `update checkpoints set lease_until = now() - interval '1 second' where name = 'cart_v1_3.fill'`) // as time would
	code, out, stderr := projections(t, "rebuild", "cart", "--json", "--switch")
	expect(t, "going on: "+stderr, code, exitDone)
	done := decode(t, out)
	expect(t, "it goes on", []any{done["table"], done["resumed"], done["workers"]}, []any{"cart_v1_3", true, 2})
	if done["events"].(float64) >= 6000 {
		t.Errorf("it began anew: %v events", done["events"])
	}
	var different, rows int
	err := pgtest.Pool(t).QueryRow(t.Context(), `select count(*) filter (where a.* is distinct from b.*), count(*)
		from cart_v1_2 a full join cart_v1_3 b using (id)`).Scan(&different, &rows)
	if err != nil || different != 0 || rows != 3000 {
		t.Errorf("%d of %d rows differ, %v", different, rows, err)
	}
}

// A pause in one process is one in all of them, also in those that start later.
func TestProjectionsPauseHoldsAcrossProcesses(t *testing.T) {
	t.Parallel()
	one := startProgram(t, pgtest.URL(t), "LEASE_TTL=1s")
	s := &server{url: one.url}
	cart := s.open(t)
	until(t, "the view to have the cart", func() bool {
		var got struct{ Cart *struct{ ID string } }
		s.ask(t, `query($id: ID!) { cart(id: $id) { id } }`, map[string]any{"id": cart}, &got)
		return got.Cart != nil
	})
	code, out, stderr := projections(t, "pause", "cart", "--by", "ada", "--json")
	expect(t, "pause: "+stderr, code, exitDone)
	expect(t, "what", decode(t, out), map[string]any{"checkpoint": "cart_v1", "state": "paused"})
	two := startProgram(t, pgtest.URL(t), "LEASE_TTL=1s")
	paused := position(t)
	for _, p := range []*program{one, two} {
		problem := post(t.Context(), p.url, `mutation($input: AddItemInput!) { addItem(input: $input) { receipt { version } cart { version } } }`,
			map[string]any{"input": item(cart, 1)}, &struct{}{})
		if !strings.Contains(problem, "PROJECTION_HALTED") || !strings.Contains(problem, `"paused":true`) {
			t.Errorf("a read that would wait is answered with %s", problem)
		}
	}
	expect(t, "position", position(t), paused)
	_, out, _ = projections(t, "status")
	if !strings.Contains(out, "paused by ada") {
		t.Errorf("status does not say it: %s", out)
	}
	if err := one.end(syscall.SIGKILL); err == nil {
		t.Error("it was not killed")
	}
	code, out, _ = projections(t, "resume", "cart_v1", "--json")
	expect(t, "resume", code, exitDone)
	expect(t, "what", decode(t, out), map[string]any{"checkpoint": "cart_v1", "state": "resumed"})
	got := (&server{url: two.url}).add(t, cart, 1)
	if got.Cart == nil {
		t.Error("it does not go on")
	}
	code, out, _ = projections(t, "status", "--json")
	expect(t, "status", code, exitDone)
	var states []map[string]any
	if err := json.Unmarshal([]byte(out), &states); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"name", "shard", "shards", "kind", "position", "head", "eventsBehind", "millisecondsBehind", "state"} {
		if _, has := states[0][name]; !has {
			t.Errorf("status lacks %s: %v", name, states[0])
		}
	}
}

func position(t *testing.T) (at int64) {
	t.Helper()
	rows, err := pgtest.Pool(t).Query(t.Context(), `select position from checkpoints where name = 'cart_v1'`)
	if err != nil {
		t.Fatal(err)
	}
	if at, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64]); err != nil {
		t.Fatal(err)
	}
	return at
}
