package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/pgtest"
)

const withToken = `mutation($input: AddItemInput!) { addItem(input: $input) { receipt { version token } userErrors { code } } }`

// tokenOf adds an item and returns the token.
func tokenOf(t *testing.T, s *server, cart string) string {
	t.Helper()
	var got struct {
		AddItem struct{ Receipt struct{ Token string } }
	}
	s.ask(t, withToken, map[string]any{"input": item(cart, 1)}, &got)
	return got.AddItem.Receipt.Token
}

// A server lives through the failover to a standby that missed the newest events: who saw them is told so, all others go
// on, and nothing of the lost history is in what it answers.
func TestAServerSurvivesAFailoverThatLosesEvents(t *testing.T) {
	t.Parallel()
	primary := pgtest.Primary(t, nil)
	standby := primary.Standby(nil)
	p := startProgram(t, pgtest.Failover(t, standby, primary), "LEASE_TTL=1s")
	s := &server{url: p.url}
	keptCart, lostCart := s.open(t), s.open(t)
	keptToken := tokenOf(t, s, keptCart) // position 3
	events := func(cart string) string {
		return `subscription { events(after: "0", stream: "` + cart + `") { position type } }`
	}
	kept, lost := follow(t, s.url, events(keptCart)), follow(t, s.url, events(lostCart))
	object := follow(t, s.url, `subscription { cartChanged(id: "`+lostCart+`") { version } }`)
	hear(t, kept, `"position":"3"`)
	standby.CatchUp(primary)
	standby.Detach()
	tokenOf(t, s, lostCart)
	lostToken := tokenOf(t, s, lostCart) // position 5
	hear(t, lost, `"position":"5"`)
	hear(t, object, `"version":3`)
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	standby.Promote()

	hear(t, lost, "LOG_DIVERGED")
	hear(t, object, "LOG_DIVERGED")
	read := func(cart, token string) string {
		var got struct{ Cart struct{ Version int } }
		if problem := post(t.Context(), s.url, `query($id: ID!, $t: Token) { cart(id: $id, atLeast: $t) { version } }`,
			map[string]any{"id": cart, "t": token}, &got); problem != "" {
			return problem
		}
		return strconv.Itoa(got.Cart.Version)
	}
	until(t, "the token of what was lost to be refused", func() bool { return strings.Contains(read(lostCart, lostToken), "LOG_DIVERGED") })
	until(t, "the token of what was kept to be good", func() bool { return read(keptCart, keptToken) == "2" })

	// The server had version 3 of the lost cart in memory; the log has 1.
	add := func(cart string) payload {
		t.Helper()
		var added struct{ AddItem payload }
		input := item(cart, 1)
		input["commandId"] = "after the failover: " + cart // given again until it is answered, it has one effect
		until(t, "commands to go on", func() bool {
			return post(t.Context(), s.url, withToken, map[string]any{"input": input}, &added) == "" && added.AddItem.Receipt != nil
		})
		return added.AddItem
	}
	if added := add(lostCart); added.Receipt.Version != 2 {
		t.Errorf("a command on the lost cart: %+v", added)
	}
	token := add(keptCart).Receipt.Token
	hear(t, kept, `"position":"5"`)
	if got := read(keptCart, token); got != "3" {
		t.Errorf("a new token: %s", got)
	}
	conn, err := pgx.Connect(t.Context(), standby.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var holes, wrong, raised int
	err = conn.QueryRow(t.Context(), `select max(position) - count(*),
		(select count(*) from cart c where c.version <> (select max(version) from events e where e.stream = c.id)),
		(select count(*) from epochs) from events`).Scan(&holes, &wrong, &raised)
	if err != nil || holes != 0 || wrong != 0 || raised != 1 {
		t.Errorf("%d holes, %d carts that differ from the log, %d raises: %v", holes, wrong, raised, err)
	}
	// The test's server does not sync, which doctor says, and nothing else is wrong.
	code, out, stderr := command(t, "doctor", "--deep", "--database-url", standby.URL())
	if code != exitFailed || !strings.Contains(out, "a standby was promoted") || strings.Count(out, levelProblem) != 1 {
		t.Errorf("doctor ended with %d and said %s%s", code, out, stderr)
	}
}

// Doctor finds a checkpoint whose event is not in the log, and says by which command it is set right.
func TestDoctorFindsWhatIsNotOfThisLog(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	s := startServer(t, Config{})
	s.add(t, s.open(t), 1)
	pool := pgtest.Pool(t)
	foreign := func(name string) {
		t.Helper()
		_, err := pool.Exec(t.Context(), `insert into checkpoints (name, position, event_id, log_id)
			select $1, 2, gen_random_uuid(), log_id from log`, name)
		if err != nil {
			t.Fatal(err)
		}
	}
	foreign("relay_nats")
	var found examination
	code, out, stderr := command(t, "doctor", "--json", "--database-url", url)
	if err := json.Unmarshal([]byte(out), &found); err != nil || code != exitFailed || found.Well {
		t.Fatalf("doctor ended with %d and said %s%s: %v", code, out, stderr, err)
	}
	told := false
	for _, f := range found.Findings {
		if f.What == "checkpoint relay_nats" {
			told = f.Level == levelProblem && strings.Contains(f.Do, "api checkpoints rewind relay_nats")
		} else if strings.HasPrefix(f.What, "checkpoint") && f.Level != levelOK {
			t.Errorf("%+v", f)
		}
	}
	if !told || found.Log.Missing != 0 || found.Log.Head != 2 || found.Log.Elsewhere() {
		t.Errorf("doctor said %s", out)
	}
	rewind := func(args ...string) (int, string) {
		code, out, stderr := command(t, append([]string{"checkpoints", "rewind", "--database-url", url}, args...)...)
		return code, out + stderr
	}
	for _, refused := range [][]string{
		{"relay_nats", "--to", "1"},
		{"relay_nats", "--to", "3", "--yes"},
		{"relay_nats", "--to", "-1", "--yes"},
		{"nothing", "--to", "head", "--yes"},
		{"cart_v1", "--to", "0", "--yes"},
	} {
		if code, said := rewind(refused...); code != exitUsage {
			t.Errorf("%v: ended with %d and said %s", refused, code, said)
		}
	}
	if code, said := rewind("relay_nats", "--to", "1", "--yes"); code != exitDone || !strings.Contains(said, "events 2 to 2 are handed over again") {
		t.Errorf("ended with %d and said %s", code, said)
	}
	if _, out, _ := command(t, "doctor", "--database-url", url); strings.Contains(out, "not in the log") {
		t.Errorf("doctor said %s", out)
	}
}

// A dump that is restored into another cluster goes on there: tokens of before, views, policies. What the old cluster went on to
// do is not taken for the dump's.
func TestADumpGoesOnInAnotherCluster(t *testing.T) {
	t.Parallel()
	primary := pgtest.Primary(t, nil)
	p := startProgram(t, primary.URL(), "LEASE_TTL=1s")
	s := &server{url: p.url}
	cart := s.open(t)
	kept := tokenOf(t, s, cart)
	dump := primary.Dump()
	lost := tokenOf(t, s, cart)
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Fatalf("the server ended with %v: %s", err, p.log)
	}
	loaded := pgtest.Empty(t)
	loaded.Load(dump)
	s = &server{url: startProgram(t, loaded.URL(), "LEASE_TTL=1s").url}
	read := func(token string) string {
		var got struct{ Cart struct{ Version int } }
		problem := post(t.Context(), s.url, `query($id: ID!, $t: Token) { cart(id: $id, atLeast: $t) { version } }`,
			map[string]any{"id": cart, "t": token}, &got)
		return problem + strconv.Itoa(got.Cart.Version)
	}
	until(t, "the token of what the dump has to be good", func() bool { return read(kept) == "2" })
	if got := read(lost); !strings.Contains(got, "LOG_DIVERGED") {
		t.Errorf("the token of what it has not: %s", got)
	}
	token := tokenOf(t, s, cart) // at the position of what was lost
	until(t, "a new token to be good", func() bool { return read(token) == "3" })
	if got := read(lost); !strings.Contains(got, "LOG_DIVERGED") {
		t.Errorf("the token of what it has not, once something else is there: %s", got)
	}
	until(t, "all checkpoints to be in the new epoch", func() (all bool) {
		loaded.QueryRow(`select bool_and(c.log_epoch = l.epoch and c.halted_at is null) from checkpoints c, log l`, &all)
		return all
	})
	// The test's server does not sync, which doctor says, and nothing else is wrong.
	code, out, stderr := command(t, "doctor", "--deep", "--database-url", loaded.URL())
	if code != exitFailed || !strings.Contains(out, "in another cluster now") || strings.Count(out, levelProblem) != 1 {
		t.Errorf("doctor ended with %d and said %s%s", code, out, stderr)
	}
}
