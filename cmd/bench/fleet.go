package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// failovers is how many processes are ended in each way.
const failovers = 20

// node is a server in a process of its own.
type node struct {
	cmd     *exec.Cmd
	address string
}

func startNode(ctx context.Context, api, databaseURL string) (*node, error) {
	address, process, _, err := serveProcess(ctx, api, databaseURL)
	if err != nil {
		return nil, err
	}
	return &node{cmd: process, address: address}, nil
}

func (n *node) end(how syscall.Signal) {
	_ = n.cmd.Process.Signal(how)
	_ = n.cmd.Wait()
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// failoverSection prints how long the cart view stands still when its owner ends: from the signal until the view has
// an event that was appended after it.
func (b *bench) failoverSection(ctx context.Context) error {
	api, err := b.buildAPI(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("\n### The owner of cartview ends, one of three servers, %d times each\n\n| how | p50 | max |\n| --- | ---: | ---: |\n", failovers)
	for _, way := range []struct {
		name string
		how  syscall.Signal
	}{{"kill -9", syscall.SIGKILL}, {"SIGTERM", syscall.SIGTERM}} {
		took, err := b.failOver(ctx, api, way.how)
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %s | %s |\n", way.name, short(took[len(took)/2]), short(took[len(took)-1]))
	}
	return nil
}

func (b *bench) failOver(ctx context.Context, api string, how syscall.Signal) (took []time.Duration, err error) {
	db, err := b.database(ctx)
	if err != nil {
		return nil, err
	}
	defer db.drop()
	store, err := b.open(ctx, db)
	if err != nil {
		return nil, err
	}
	defer store.Close(ctx)
	// What is appended here is told to the servers, as by a server.
	telling, stopTelling := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		_ = outbox.NewNode(db.pool, store, outbox.NodeConfig{}).Run(telling)
	}()
	defer func() { stopTelling(); <-told }()
	nodes := map[int]*node{}
	defer func() {
		for _, n := range nodes {
			n.end(syscall.SIGTERM)
		}
	}()
	for range failovers {
		for len(nodes) < 3 {
			n, err := startNode(ctx, api, db.url)
			if err != nil {
				return nil, err
			}
			nodes[n.cmd.Process.Pid] = n
		}
		rest(ctx, 3*time.Second) // leases are shared out meanwhile
		owner, err := ownerOfCarts(ctx, db)
		if err != nil {
			return nil, err
		}
		n := nodes[owner]
		delete(nodes, owner)
		start := time.Now()
		ended := make(chan struct{})
		go func() { n.end(how); close(ended) }()
		if how == syscall.SIGKILL {
			<-ended
		}
		d, err := untilCartsMove(ctx, db, store, n, start)
		if err != nil {
			return nil, err
		}
		took = append(took, d)
		<-ended
	}
	slices.Sort(took)
	return took, nil
}

// ownerOfCarts is the process that has the lease of the cart view.
func ownerOfCarts(ctx context.Context, db *database) (process int, err error) {
	for range 3000 {
		err = db.pool.QueryRow(ctx, `select n.pid from checkpoints c join nodes n on n.id = c.lease_owner
			where c.name = 'cart_v1' and c.lease_until > clock_timestamp()`).Scan(&process)
		if err == nil {
			return process, nil
		}
		rest(ctx, 10*time.Millisecond)
	}
	return 0, fmt.Errorf("waiting for an owner of cartview: %w", err)
}

// untilCartsMove waits until another process than one that ends has moved the cart view over an event that was appended
// meanwhile.
func untilCartsMove(ctx context.Context, db *database, store *eventstore.Store, ending *node, start time.Time) (time.Duration, error) {
	for range 30_000 {
		other := false
		err := db.pool.QueryRow(ctx, `select count(*) > 0 from checkpoints c left join nodes n on n.id = c.lease_owner
			where c.name = 'cart_v1' and c.lease_until > clock_timestamp() and n.pid is distinct from $1`, ending.cmd.Process.Pid).Scan(&other)
		if err != nil {
			return 0, err
		}
		if other {
			receipt, err := store.Append(ctx, eventstore.Request{Stream: cart.NewID(), Events: cartPayloads()[:1], Metadata: benchMeta})
			if err != nil {
				return 0, err
			}
			for moved := false; !moved; rest(ctx, time.Millisecond) {
				err = db.pool.QueryRow(ctx, `select position >= $1 from checkpoints where name = 'cart_v1'`, receipt.Token.Position).Scan(&moved)
				if err != nil {
					return 0, err
				}
			}
			return time.Since(start), nil
		}
		rest(ctx, time.Millisecond)
	}
	return 0, fmt.Errorf("nobody took cartview over")
}
