package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// cartRequests is how many items go into a cart before the next one is opened, so that quantities stay within bounds.
const cartRequests = 200

const openCartMutation = `mutation($input: OpenCartInput!) { openCart(input: $input) { receipt { stream } userErrors { code } } }`

const addItemMutation = `mutation($input: AddItemInput!) { addItem(input: $input) { %s userErrors { code } } }`

func (b *bench) graphqlSection(ctx context.Context) error {
	api, err := b.buildAPI(ctx)
	if err != nil {
		return err
	}
	cases := b.baselineCases()
	for _, selection := range []string{"receipt { position }", "cart { version }"} {
		for _, n := range []int{1, 32, 128} {
			c := benchCase{
				name: "addItem selecting " + selection + ", " + many(n, "connection"),
				run:  b.addItem(api, n, selection), base: "P",
			}
			if n == 128 && selection == "receipt { position }" {
				c.target = 0.8
			}
			cases = append(cases, c)
		}
	}
	return b.report(ctx, "GraphQL mutations over HTTP, relay and projections running", "mutations/s", cases)
}

func (b *bench) buildAPI(ctx context.Context) (string, error) {
	if b.config.API != "" {
		return b.config.API, nil
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("headrace-bench-api-%d", os.Getpid()))
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/api").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the server: %w: %s", err, out)
	}
	return path, nil
}

// addItem measures whole mutations against the server's own binary in a process of its own.
func (b *bench) addItem(api string, connections int, selection string) func(context.Context) (sample, error) {
	return func(ctx context.Context) (sample, error) {
		db, err := b.database(ctx)
		if err != nil {
			return sample{}, err
		}
		defer db.drop()
		address, stop, err := serve(ctx, api, db.url)
		if err != nil {
			return sample{}, err
		}
		defer stop()
		shoppers := make([]*shopper, connections)
		for i := range shoppers {
			c, err := dial(ctx, address)
			if err != nil {
				return sample{}, err
			}
			defer c.conn.Close()
			shoppers[i] = &shopper{client: c, query: fmt.Sprintf(addItemMutation, selection)}
		}
		return run(ctx, connections, 1, b.config.Duration, func(_ context.Context, w, n int) error {
			return shoppers[w].add(n)
		})
	}
}

// serve starts the server in production mode on a free port and waits until it is ready.
func serve(ctx context.Context, api, databaseURL string) (address string, stop func(), err error) {
	address, _, stop, err = serveProcess(ctx, api, databaseURL)
	return address, stop, err
}

// serveProcess is serve that also returns the process.
func serveProcess(ctx context.Context, api, databaseURL string) (address string, process *exec.Cmd, stop func(), err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, nil, fmt.Errorf("looking for a free port: %w", err)
	}
	address = listener.Addr().String()
	if err := listener.Close(); err != nil {
		return "", nil, nil, err
	}
	cmd := exec.CommandContext(ctx, api, "serve")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+databaseURL, "LISTEN_ADDR="+address, "HEADRACE_ENV=production", "AUTH=off")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", nil, nil, fmt.Errorf("starting the server: %w", err)
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	for range 300 {
		if ready(ctx, address) {
			return address, cmd, stop, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	stop()
	return "", nil, nil, fmt.Errorf("the server at %s did not become ready", address)
}

func ready(ctx context.Context, address string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// shopper fills carts over one connection.
type shopper struct {
	client *client
	query  string
	cart   string
	bodies [][]byte
}

func (s *shopper) add(n int) error {
	if n%cartRequests == 0 {
		if err := s.open(); err != nil {
			return err
		}
	}
	if len(s.bodies) == 0 {
		s.fill()
	}
	_, err := s.client.post(s.bodies[n%len(s.bodies)])
	return err
}

// fill writes the requests once for a cart: encoding them each time would count against the server.
func (s *shopper) fill() {
	for n := range cartLines {
		item := addItem(n)
		s.bodies = append(s.bodies, request(s.query, map[string]any{
			"cartId": s.cart, "sku": item.SKU, "name": item.Name, "quantity": item.Quantity,
			"unitPrice": map[string]any{"amount": item.UnitPrice.Amount, "currency": item.UnitPrice.Currency},
		}))
	}
}

func (s *shopper) open() error {
	answer, err := s.client.post(request(openCartMutation, map[string]any{"ownerId": "bench", "currency": "EUR"}))
	if err != nil {
		return err
	}
	var opened struct {
		Data struct {
			OpenCart struct {
				Receipt struct{ Stream string }
			}
		}
	}
	if err := json.Unmarshal(answer, &opened); err != nil {
		return fmt.Errorf("reading an answer: %w", err)
	}
	s.cart, s.bodies = opened.Data.OpenCart.Receipt.Stream, nil
	return nil
}

func request(query string, input map[string]any) []byte {
	return mustJSON(map[string]any{"query": query, "variables": map[string]any{"input": input}})
}
