package main

import (
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/migrations"
)

// The server works with the privileges that docs/operations.md lists, and with those alone.
func TestTheServerNeedsNoMorePrivilegesThanDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "```sql\n")
	grants, _, closed := strings.Cut(after, "```")
	if !found || !closed {
		t.Fatal("docs/operations.md has no block of SQL")
	}
	cluster := pgtest.Cluster(t)
	url, err := cluster.Database(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	owner, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	if err := migrations.Up(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Exec(t.Context(), "create role app login;"+grants, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, strings.Replace(url, "postgres://postgres@", "postgres://app@", 1))
	s := &server{url: p.url}
	cart := s.open(t)
	if added := s.add(t, cart, 1); added.Cart == nil {
		t.Fatalf("the view is not kept: %+v", added)
	}
	if out := s.checkOut(t, cart); out.Order == nil {
		t.Fatalf("the policy does not run: %+v", out)
	}
	var duplicate struct{ OpenCart payload }
	s.ask(t, `mutation { openCart(input: {ownerId: "ada", currency: "EUR", commandId: "1"}) { receipt { version } userErrors { code } } }`,
		nil, &duplicate)
	if duplicate.OpenCart.Receipt == nil {
		t.Fatalf("got %+v", duplicate)
	}
	if code, body := get(t, p.url+"/readyz"); code != 200 {
		t.Fatalf("not ready: %s", body)
	}
}
