package main

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/commands/money"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/cartview"
)

// half is a process that shares the work on the carts: what wire puts together, reduced to one view.
type half struct {
	store    *eventstore.Store
	progress *queries.Progress
	carts    *commands.Handler[cart.Command, cart.Event, cart.State]
	worker   *worker
}

// startHalf starts a process whose view of carts has four shards. Standby is how soon it takes what nobody owns.
func startHalf(t *testing.T, projection queries.Projection, registry *eventstore.Registry, standby time.Duration) *half {
	t.Helper()
	pool := pgtest.Pool(t)
	store, err := eventstore.Open(t.Context(), pool, registry, eventstore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	log, broker := slog.New(slog.DiscardHandler), outbox.NewLocal(outbox.LocalConfig{})
	a := &app{config: &Config{}, log: log, pool: pool, store: store}
	progress := queries.NewProgress(pool, store, queries.ProgressConfig{})
	a.work("relay", outbox.NewRelay(store, broker, outbox.RelayConfig{Logger: log}).Run)
	consumers{app: a, broker: broker, progress: progress, config: outbox.ConsumerConfig{
		TTL: 30 * time.Second, Standby: standby, Logger: log,
	}}.project(projection)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var workers sync.WaitGroup
	for _, w := range a.workers {
		workers.Go(func() { w.start(ctx, log) })
	}
	t.Cleanup(func() {
		cancel()
		workers.Wait()
		if err := store.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &half{
		store: store, progress: progress, worker: a.workers[1],
		carts: commands.NewHandler(store, cart.Decider(), commands.Config{}),
	}
}

// owned is how many shards the process works on.
func (h *half) owned() (shards int) {
	_, followers := h.worker.followers()
	for _, status := range followers {
		if status.Owner {
			shards++
		}
	}
	return shards
}

func (h *half) do(t *testing.T, stream string, c cart.Command) eventstore.Token {
	t.Helper()
	receipt, err := h.carts.Handle(t.Context(), stream, c, commands.Call{Who: identity.System("test")})
	if err != nil {
		t.Fatal(err)
	}
	return receipt.Token
}

// A view of four shards is two processes' work: whoever waits in either of them for a token reads what it stands for, and
// the table is what a replay gives.
func TestTwoProcessesShareAView(t *testing.T) {
	t.Parallel()
	registry, err := newRegistry()
	if err != nil {
		t.Fatal(err)
	}
	view := cartview.View()
	view.Shards = 4
	projection, err := view.Projection(registry)
	if err != nil {
		t.Fatal(err)
	}
	one := startHalf(t, projection, registry, time.Hour)
	until(t, "the first to own all shards", func() bool { return one.owned() == 4 })
	two := startHalf(t, projection, registry, time.Millisecond)
	reader := cartview.NewReader(queries.NewReads(pgtest.Pool(t)), queries.PageConfig{})
	_, err = pgtest.Pool(t).Exec(t.Context(), `update checkpoints set lease_until = '-infinity', lease_epoch = lease_epoch + 1
		where name = 'cart_v1' and shard >= 2`)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the second to own two of them", func() bool { return two.owned() == 2 })
	var streams []string
	for i := range 40 {
		writer, other := one, two
		if i%2 == 1 {
			writer, other = two, one
		}
		stream := eventstore.StreamID(cart.Category)
		streams = append(streams, stream)
		writer.do(t, stream, cart.Open{OwnerID: "ada", Currency: "EUR"})
		token := writer.do(t, stream, cart.AddItem{
			SKU: "sku-1", Name: "A thing", Quantity: 1 + i, UnitPrice: money.Money{Amount: 100, Currency: "EUR"},
		})
		for _, h := range []*half{writer, other} {
			if err := h.progress.Wait(t.Context(), cartview.Name, token); err != nil {
				t.Fatal(err)
			}
			got, err := reader.Get(t.Context(), stream)
			if err != nil || got == nil || got.TotalAmount != int64(100*(1+i)) {
				t.Fatalf("cart %d is %+v, %v", i, got, err)
			}
		}
	}
	until(t, "the first to notice what it lost", func() bool { return one.owned() == 2 })
	for _, stream := range streams {
		events, err := one.store.ReadStream(t.Context(), stream, eventstore.StreamQuery{})
		if err != nil {
			t.Fatal(err)
		}
		want, _, err := view.Fold(registry, cartview.Cart{}, false, events...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := reader.Get(t.Context(), stream)
		if err != nil {
			t.Fatal(err)
		}
		got.UpdatedAt, got.OpenedAt = want.UpdatedAt, want.OpenedAt // the same moments in another time zone
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("got %+v\nwant %+v", *got, want)
		}
	}
	for i, part := range two.worker.state() {
		if want := fmt.Sprintf("projection cart, shard %d of 4", i); part.name != want || part.problem {
			t.Errorf("part %d is %+v, and should be a good %q", i, part, want)
		}
	}
}
