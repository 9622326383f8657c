package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/pgtest"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/cartview"
)

// asNextRelease, as the value of asProgram, makes this test's binary be the program of the next release: its view of carts has
// another version, and with it another table.
const asNextRelease = "next release"

func nextProjections(registry *eventstore.Registry) ([]queries.Projection, error) {
	all, err := newProjections(registry)
	if err != nil {
		return nil, err
	}
	view := cartview.View()
	view.Version = 2
	all[0], err = view.Projection(registry)
	return all, err
}

func runNextRelease(ctx context.Context) int {
	var parsed struct {
		Serve serveCommand `cmd:""`
	}
	parser, err := kong.New(&parsed)
	if err == nil {
		_, err = parser.Parse(os.Args[1:])
	}
	if err == nil {
		err = parsed.Serve.serve(ctx, nextProjections)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "api:", err)
		return exitFailed
	}
	return exitDone
}

const (
	chaosServers     = 3
	chaosShoppers    = 6
	chaosSubscribers = 4
	chaosTTL         = time.Second // of leases
)

// chaosFor is how long servers are killed and stopped: HEADRACE_CHAOS, which `make chaos` sets, or a moment.
func chaosFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("HEADRACE_CHAOS")
	if text == "" {
		return 12 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("HEADRACE_CHAOS: %v", err)
	}
	return d
}

// chaos is a fleet that is not left in peace.
type chaos struct {
	t        *testing.T
	database string
	pool     *pgxpool.Pool
	release  string // what servers that are started are: a value of asProgram
	log      strings.Builder

	mu      sync.Mutex
	servers [chaosServers]*program
}

// url is that of a server by chance, which may be gone or asleep.
func (c *chaos) url() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.servers[rand.IntN(chaosServers)].url
}

func (c *chaos) start(i int) {
	c.t.Helper()
	p := startProgram(c.t, c.database, fmt.Sprintf("LEASE_TTL=%s", chaosTTL), "DRAIN_TIMEOUT=2s", asProgram+"="+c.release)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers[i] = p
}

// replace ends a server and starts another in its place.
func (c *chaos) replace(i int, how syscall.Signal) {
	c.t.Helper()
	_ = c.servers[i].end(how)
	c.start(i)
}

// torment kills, stops and puts to sleep until the deadline, and half way goes over to the next release.
func (c *chaos) torment(d time.Duration) {
	c.t.Helper()
	begun, rolled := time.Now(), false
	for time.Since(begun) < d {
		if !rolled && time.Since(begun) > d/2 {
			rolled = true
			c.release = asNextRelease
			for i := range chaosServers {
				fmt.Fprintf(&c.log, "%5.1f s: server %d becomes the next release\n", time.Since(begun).Seconds(), i)
				c.replace(i, syscall.SIGTERM)
			}
			c.switchOver()
			fmt.Fprintf(&c.log, "%5.1f s: the next release's table serves\n", time.Since(begun).Seconds())
		}
		i, what := rand.IntN(chaosServers), rand.IntN(3)
		fmt.Fprintf(&c.log, "%5.1f s: server %d: %s\n", time.Since(begun).Seconds(), i, []string{"kill -9", "SIGSTOP", "SIGTERM"}[what])
		switch what {
		case 0:
			c.replace(i, syscall.SIGKILL)
		case 1:
			_ = c.servers[i].cmd.Process.Signal(syscall.SIGSTOP)
			c.rest(chaosTTL + time.Duration(rand.Int64N(int64(chaosTTL))))
			_ = c.servers[i].cmd.Process.Signal(syscall.SIGCONT)
		default:
			c.replace(i, syscall.SIGTERM)
		}
		c.rest(time.Duration(rand.Int64N(int64(chaosTTL))))
	}
}

// rest is part of the torment: nothing depends on how long it takes.
func (c *chaos) rest(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.t.Context().Done():
	}
}

// switchOver lets the table of the next release serve, as `api projections switch` does.
func (c *chaos) switchOver() {
	c.t.Helper()
	registry, err := newRegistry()
	if err != nil {
		c.t.Fatal(err)
	}
	all, err := nextProjections(registry)
	if err != nil {
		c.t.Fatal(err)
	}
	store, err := eventstore.Open(c.t.Context(), c.pool, registry, eventstore.Config{})
	if err != nil {
		c.t.Fatal(err)
	}
	defer store.Close(context.WithoutCancel(c.t.Context()))
	if _, err := queries.Switch(c.t.Context(), c.pool, store, all[0], 0, queries.RebuildConfig{}); err != nil {
		c.t.Fatal(err)
	}
}

// shopper sends commands, each until it is acknowledged by whichever server, under one id.
type chaosShopper struct {
	c            *chaos
	name         string
	acknowledged []string // the SKU that each command adds
	times        []time.Time
	problem      string
}

func (s *chaosShopper) shop(stop <-chan struct{}) {
	for cart := 0; ; cart++ {
		var opened struct{ OpenCart payload }
		id := fmt.Sprintf("%s-%d", s.name, cart)
		s.insist(`mutation($id: ID) { openCart(input: {ownerId: "ada", currency: "EUR", commandId: $id}) {
			receipt { stream version } userErrors { code } } }`, map[string]any{"id": id}, &opened)
		if opened.OpenCart.Receipt == nil {
			s.problem = fmt.Sprintf("a cart was refused: %+v", opened)
			return
		}
		var registered struct{ RegisterUser payload }
		s.insist(`mutation($email: String!, $id: ID) { registerUser(input: {email: $email, name: "Ada", commandId: $id}) {
			receipt { version } userErrors { code } } }`, map[string]any{"email": id + "@example.org", "id": "user-" + id}, &registered)
		if registered.RegisterUser.Receipt == nil {
			s.problem = fmt.Sprintf("a user was refused: %+v", registered)
			return
		}
		for n := range 20 {
			select {
			case <-stop:
				return
			default:
			}
			input := item(opened.OpenCart.Receipt.Stream, 1)
			sku := fmt.Sprintf("%s-%d", strings.ToUpper(id), n)
			input["sku"], input["commandId"] = sku, sku
			var added struct{ AddItem payload }
			s.insist(`mutation($input: AddItemInput!) { addItem(input: $input) { receipt { version } userErrors { code } } }`,
				map[string]any{"input": input}, &added)
			if added.AddItem.Receipt == nil {
				s.problem = fmt.Sprintf("%s was refused: %+v", sku, added)
				return
			}
			s.acknowledged, s.times = append(s.acknowledged, sku), append(s.times, time.Now())
		}
		var out struct{ CheckOutCart payload }
		s.insist(`mutation($id: ID!, $command: ID) { checkOutCart(input: {cartId: $id, commandId: $command}) { orderId userErrors { code } } }`,
			map[string]any{"id": opened.OpenCart.Receipt.Stream, "command": "out-" + id}, &out)
	}
}

// insist asks one server after another until one answers.
func (s *chaosShopper) insist(document string, variables map[string]any, out any) {
	for s.c.t.Context().Err() == nil {
		ctx, cancel := context.WithTimeout(s.c.t.Context(), 5*time.Second)
		problem := post(ctx, s.c.url(), document, variables, out)
		cancel()
		if problem == "" {
			return
		}
		s.c.rest(10 * time.Millisecond)
	}
}

func TestChaos(t *testing.T) {
	t.Parallel()
	c := &chaos{t: t, database: pgtest.URL(t), pool: pgtest.Pool(t), release: "1"}
	if _, err := c.pool.Exec(t.Context(), `create table cart_v2 (like cart_v1 including all)`); err != nil {
		t.Fatal(err)
	}
	for i := range chaosServers {
		c.start(i)
	}
	stop, begun := make(chan struct{}), time.Now()
	var shopping, following sync.WaitGroup
	shoppers := make([]*chaosShopper, chaosShoppers)
	for i := range shoppers {
		shoppers[i] = &chaosShopper{c: c, name: fmt.Sprintf("s%d", i)}
		shopping.Go(func() { shoppers[i].shop(stop) })
	}
	var head atomic.Int64 // unknown while 0: then a subscriber goes on
	subscribers := make([]*chaosSubscriber, chaosSubscribers)
	for i := range subscribers {
		subscribers[i] = &chaosSubscriber{c: c, overSocket: i%2 == 1, last: &head}
		following.Go(subscribers[i].follow)
	}
	c.torment(chaosFor(t))
	close(stop)
	shopping.Wait()
	took := time.Since(begun)
	c.settle(&head)
	following.Wait()

	c.checkLog()
	c.checkCommands(shoppers)
	c.checkViews()
	reconnects := 0
	for i, s := range subscribers {
		if s.problem != "" || s.position != head.Load() {
			t.Errorf("subscriber %d is at %d of %d: %s", i, s.position, head.Load(), s.problem)
		}
		reconnects += s.reconnects
	}
	t.Logf("%d events, %d reconnects of %d subscribers\n%s\n%s", head.Load(), reconnects, chaosSubscribers, c.log.String(), curve(shoppers, begun, took))
}

// settle waits until the views and policies are at the head, which does not move any more, and tells which that is.
func (c *chaos) settle(head *atomic.Int64) {
	c.t.Helper()
	before := int64(-1)
	until(c.t, "everything to come to the head", func() bool {
		var at, behind int64
		err := c.pool.QueryRow(c.t.Context(), `select (select max(position) from events), count(*) from checkpoints
			where name <> 'cart_v1' and position < (select max(position) from events)`).Scan(&at, &behind)
		if err != nil {
			c.t.Fatal(err)
		}
		done := behind == 0 && at == before
		before = at
		return done
	})
	head.Store(before)
}

func (c *chaos) checkLog() {
	c.t.Helper()
	var holes, gaps int
	err := c.pool.QueryRow(c.t.Context(), `select (select max(position) - count(*) from events),
		(select count(*) from (select max(version) - count(*) as gap from events group by stream) s where gap <> 0)`).Scan(&holes, &gaps)
	if err != nil || holes != 0 || gaps != 0 {
		c.t.Errorf("%d holes in the positions, %d streams with holes in their versions, %v", holes, gaps, err)
	}
}

// checkCommands wants each acknowledged command in the log once, and no other.
func (c *chaos) checkCommands(shoppers []*chaosShopper) {
	c.t.Helper()
	rows, err := c.pool.Query(c.t.Context(), `select data->>'sku' from events where type = 'cart.item_added' order by 1`)
	if err != nil {
		c.t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		c.t.Fatal(err)
	}
	var want []string
	for _, s := range shoppers {
		if s.problem != "" {
			c.t.Error(s.problem)
		}
		want = append(want, s.acknowledged...)
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) == 0 || !slices.Equal(got, want) {
		c.t.Errorf("%d commands were acknowledged, %d have an effect", len(want), len(got))
	}
}

// curve is how many commands were acknowledged in each second.
func curve(shoppers []*chaosShopper, begun time.Time, took time.Duration) string {
	seconds := make([]int, int(took.Seconds())+1)
	for _, s := range shoppers {
		for _, at := range s.times {
			if i := int(at.Sub(begun).Seconds()); i < len(seconds) {
				seconds[i]++
			}
		}
	}
	most := max(1, slices.Max(seconds))
	var b strings.Builder
	b.WriteString("commands acknowledged in each second:\n")
	for i, n := range seconds {
		fmt.Fprintf(&b, "%4d %5d %s\n", i, n, strings.Repeat("#", n*60/most))
	}
	return b.String()
}
