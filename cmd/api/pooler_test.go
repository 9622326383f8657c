package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/pgtest"
)

// emptyDatabase makes a database beside the test's own that nobody has migrated.
func emptyDatabase(t *testing.T) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	name := conn.Config().Database + "_empty"
	for _, sql := range []string{"drop database if exists " + name + " with (force)", "create database " + name} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_, _ = conn.Exec(context.Background(), "drop database if exists "+name+" with (force)")
		_ = conn.Close(context.Background())
	})
	address, err := url.Parse(pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	address.Path = "/" + name
	return address.String()
}

func TestMigrationsGoByTheDirectURL(t *testing.T) {
	t.Parallel()
	args := []string{"migrate", "status", "--database-url", "postgres://nobody@127.0.0.1:1/none", "--database-direct-url", pgtest.URL(t)}
	if code, stdout, stderr := command(t, args...); code != exitDone {
		t.Errorf("exit %d: %s %s", code, stdout, stderr)
	}
}

// follow subscribes and hands on the data of each message until the test ends.
func follow(t *testing.T, server, document string) <-chan string {
	t.Helper()
	body, err := json.Marshal(map[string]any{"query": document})
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server+"/graphql", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request) //nolint:bodyclose // below, when the stream has ended
	if err != nil {
		t.Fatal(err)
	}
	messages := make(chan string, 1000)
	go func() {
		defer response.Body.Close()
		defer close(messages)
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			if data, is := strings.CutPrefix(lines.Text(), "data:"); is {
				messages <- data
			}
		}
	}()
	return messages
}

// hear reads messages until one holds the text.
func hear(t *testing.T, messages <-chan string, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		select {
		case m, more := <-messages:
			if strings.Contains(m, text) {
				return
			}
			if !more {
				t.Fatalf("the stream ended before %s", text)
			}
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", text)
		}
	}
}

// Two processes and all that they do share four connections, which PgBouncer hands from one to the other after each
// transaction: migrations, commands, views with waiting, policies, messages, subscriptions. Then PgBouncer is killed.
func TestTwoProcessesBehindAPooler(t *testing.T) {
	t.Parallel()
	pooler := pgtest.StartPooler(t, emptyDatabase(t), 4)
	if code, _, stderr := command(t, "migrate", "up", "--database-url", pooler.URL); code != exitDone {
		t.Fatalf("migrating: exit %d: %s", code, stderr)
	}
	environment := []string{"LEASE_TTL=2s", "CANCEL_UNPAID_AFTER=3s"}
	programs := []*program{startProgram(t, pooler.URL, environment...), startProgram(t, pooler.URL, environment...)}
	one, two := &server{url: programs[0].url}, &server{url: programs[1].url}
	if !strings.Contains(programs[0].log.String(), "a pooler that keeps no prepared statements") {
		t.Error("the pooler was not noticed")
	}

	cart := one.open(t)
	events := follow(t, two.url, `subscription { events(after: 0) { position stream type } }`)
	changes := follow(t, two.url, fmt.Sprintf(`subscription { cartChanged(id: %q) { version items { quantity } } }`, cart))
	hear(t, changes, `"version":1`)
	one.add(t, cart, 1)
	hear(t, changes, `"version":2`)
	hear(t, events, `"cart.item_added"`)
	if got := one.checkOut(t, cart); got.Order == nil || got.OrderID == "" { // on a slow machine it may be cancelled already
		t.Fatalf("the policy placed no order: %+v", got)
	} else {
		until(t, "the unpaid order to be cancelled by a message", func() bool {
			var read struct{ Order *struct{ Status string } }
			two.ask(t, `query($id: ID!) { order(id: $id) { status } }`, map[string]any{"id": got.OrderID}, &read)
			return read.Order != nil && read.Order.Status == "CANCELLED"
		})
	}

	if code, stdout, stderr := command(t, "projections", "rebuild", "cart", "--database-url", pooler.URL); code != exitDone {
		t.Errorf("rebuilding: exit %d: %s %s", code, stdout, stderr)
	}
	killUnderLoad(t, pooler, []*server{one, two})
	after := one.open(t)
	hear(t, events, after)
	for _, p := range programs {
		if err := p.end(syscall.SIGTERM); err != nil {
			t.Errorf("it ended with %v: %s", err, p.log)
		}
	}
	freshSessions(t, pooler)
}

// killUnderLoad has shoppers put things into their carts at both servers, kills PgBouncer in the middle, and checks that
// each of their commands, repeated until it was answered, had one effect.
func killUnderLoad(t *testing.T, pooler *pgtest.Pooler, servers []*server) {
	t.Helper()
	const shoppers, each = 8, 20
	var warm, all sync.WaitGroup
	carts := make([]string, shoppers)
	for i := range shoppers {
		carts[i] = servers[0].open(t)
		warm.Add(1)
		all.Go(func() {
			for n := range each {
				input := item(carts[i], 1)
				input["commandId"] = fmt.Sprintf("%s-%d", carts[i], n)
				for ctx := t.Context(); ctx.Err() == nil; {
					var got struct{ AddItem payload }
					document := `mutation($input: AddItemInput!) { addItem(input: $input) { receipt { version } userErrors { code } } }`
					if post(ctx, servers[n%2].url, document, map[string]any{"input": input}, &got) == "" {
						break
					}
				}
				if n == each/4 {
					warm.Done()
				}
			}
		})
	}
	warm.Wait()
	pooler.Kill()
	pooler.Start()
	all.Wait()
	for i, cart := range carts {
		got := servers[i%2].add(t, cart, 1)
		if got.Cart == nil || got.Cart.Items[0].Quantity != each+1 {
			t.Errorf("after %d and one: %+v", each, got)
		}
	}
}

// freshSessions checks that the connections which the processes shared are as if nobody had used them.
func freshSessions(t *testing.T, pooler *pgtest.Pooler) {
	t.Helper()
	for range 4 {
		var timeout, commit, plans, prepared string
		until(t, "the pooler to answer", func() bool { // it may be about to be started again
			conn, err := pgx.Connect(t.Context(), pooler.URL+"&default_query_exec_mode=exec")
			if err != nil {
				return false
			}
			t.Cleanup(func() { _ = conn.Close(context.Background()) }) // not before the others have sessions of their own
			if _, err = conn.Exec(t.Context(), "begin"); err != nil {
				return false
			}
			return conn.QueryRow(t.Context(), `select current_setting('statement_timeout'), current_setting('synchronous_commit'),
				current_setting('plan_cache_mode'), coalesce((select string_agg(name, ' ') from pg_prepared_statements), '')`,
			).Scan(&timeout, &commit, &plans, &prepared) == nil
		})
		if timeout != "0" || commit != "on" || plans != "auto" || prepared != "" {
			t.Errorf("left behind: statement_timeout %s, synchronous_commit %s, plan_cache_mode %s, statements %q",
				timeout, commit, plans, prepared)
		}
	}
}
