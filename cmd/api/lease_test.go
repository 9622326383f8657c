package main

import (
	"syscall"
	"testing"

	"github.com/headrace/headrace/internal/pgtest"
)

// A process that is stopped for longer than its leases last, and then wakes, finds them taken and writes nothing: every
// item is in the view once, whichever process was told of it.
func TestAStoppedProcessThatWakesWritesNothingTwice(t *testing.T) {
	t.Parallel()
	database, pool := pgtest.URL(t), pgtest.Pool(t)
	owner := func() (name string) {
		err := pool.QueryRow(t.Context(),
			"select coalesce((select lease_owner from checkpoints where name = 'cart_v1' and lease_until > clock_timestamp()), '')").Scan(&name)
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	// The cart is not selected: while nobody owns the view, it could not be read.
	add := func(s *server, cart string, quantity int) (token string) {
		var got struct{ AddItem payload }
		s.ask(t, `mutation($input: AddItemInput!) { addItem(input: $input) { receipt { token } userErrors { code } } }`,
			map[string]any{"input": item(cart, quantity)}, &got)
		return got.AddItem.Receipt.Token
	}
	first := startProgram(t, database, "LEASE_TTL=1s")
	one := &server{url: first.url}
	cart := one.open(t)
	var sleeper string
	until(t, "the first process to own the view", func() bool { sleeper = owner(); return sleeper != "" })
	two := &server{url: startProgram(t, database, "LEASE_TTL=1s").url}
	add(one, cart, 1)

	if err := first.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	add(two, cart, 2)
	until(t, "the second process to take the view over", func() bool { name := owner(); return name != "" && name != sleeper })
	if err := first.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	add(one, cart, 3)
	token := add(two, cart, 4)
	var got struct {
		Cart *struct{ Items []struct{ Quantity int } }
	}
	one.ask(t, `query($id: ID!, $token: Token!) { cart(id: $id, atLeast: $token, within: "30s") { items { quantity } } }`,
		map[string]any{"id": cart, "token": token}, &got)
	if got.Cart == nil || len(got.Cart.Items) != 1 || got.Cart.Items[0].Quantity != 10 {
		t.Fatalf("got %+v", got)
	}
}

// Servers share the leases out among themselves, and a server that is stopped leaves nothing to wait for.
func TestServersShareTheWork(t *testing.T) {
	t.Parallel()
	database, pool := pgtest.URL(t), pgtest.Pool(t)
	shares := func() (servers, fewest, most, unowned int) {
		err := pool.QueryRow(t.Context(), `select count(*), coalesce(min(leases), 0), coalesce(max(leases), 0),
			(select count(*) from checkpoints where lease_until < clock_timestamp()) from (
			select lease_owner, count(*) as leases from checkpoints where lease_until > clock_timestamp() group by 1) s`).
			Scan(&servers, &fewest, &most, &unowned)
		if err != nil {
			t.Fatal(err)
		}
		return servers, fewest, most, unowned
	}
	startProgram(t, database, "LEASE_TTL=2s")
	two := startProgram(t, database, "LEASE_TTL=2s")
	until(t, "both to have their share", func() bool {
		servers, fewest, most, unowned := shares()
		return servers == 2 && most-fewest <= 1 && unowned == 0
	})
	if err := two.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	until(t, "the first to have all", func() bool { servers, _, _, unowned := shares(); return servers == 1 && unowned == 0 })
}
