package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/eventstore"
)

const (
	// idleFor is how long idle processes are watched. Postgres counts what a connection did within ten seconds after it.
	idleFor = time.Minute
	// idleSettle lets what polls come to its rest.
	idleSettle = 20 * time.Second
	// clockTick is the unit of times in /proc on all Linux that Go runs on.
	clockTick = 10 * time.Millisecond
	// sqlWork is what the servers had this database do. Postgres counts statements when pg_stat_statements is loaded.
	sqlWork = `
select d.xact_commit + d.xact_rollback, (select coalesce(sum(calls), 0)::bigint from pg_stat_statements where dbid = d.datid)
from pg_stat_database d where d.datname = current_database()`
)

// work is what a server costs.
type work struct {
	statements, transactions int64
	processor                time.Duration
}

// idleSection prints what servers cost that nobody asks anything.
func (b *bench) idleSection(ctx context.Context) error {
	api, err := b.buildAPI(ctx)
	if err != nil {
		return err
	}
	cluster, err := startCluster(ctx, map[string]string{"shared_preload_libraries": "pg_stat_statements"})
	if err != nil {
		return err
	}
	defer cluster.Remove()
	counting := &bench{config: b.config, cluster: cluster}
	fmt.Printf("\n### Idle servers, over %s\n\n| servers | statements/min of a server | transactions/min of a server | CPU ms/min of a server |\n"+
		"| ---: | ---: | ---: | ---: |\n", idleFor)
	for _, servers := range []int{1, 2} {
		each, err := counting.idle(ctx, api, servers)
		if err != nil {
			return err
		}
		fmt.Printf("| %d | %d | %d | %d |\n", servers, each.statements, each.transactions, each.processor.Milliseconds())
	}
	return nil
}

// idle returns what each of some idle servers costs in a minute.
func (b *bench) idle(ctx context.Context, api string, servers int) (work, error) {
	db, err := b.database(ctx)
	if err != nil {
		return work{}, err
	}
	defer db.drop()
	if _, err := db.pool.Exec(ctx, "create extension pg_stat_statements"); err != nil {
		return work{}, fmt.Errorf("counting statements: %w", err)
	}
	if err := b.openCart(ctx, db); err != nil {
		return work{}, err
	}
	var nodes []*node
	defer func() {
		for _, n := range nodes {
			n.end(syscall.SIGTERM)
		}
	}()
	for range servers {
		n, err := startNode(ctx, api, db.url)
		if err != nil {
			return work{}, err
		}
		nodes = append(nodes, n)
	}
	rest(ctx, idleSettle)
	before, err := workOf(ctx, db, nodes)
	if err != nil {
		return work{}, err
	}
	rest(ctx, idleFor)
	after, err := workOf(ctx, db, nodes)
	each := func(before, after int64) int64 {
		return int64(float64(after-before) * time.Minute.Seconds() / idleFor.Seconds() / float64(servers))
	}
	return work{
		statements:   each(before.statements, after.statements),
		transactions: each(before.transactions, after.transactions),
		processor:    time.Duration(each(int64(before.processor), int64(after.processor))),
	}, err
}

// openCart lets the log not be empty.
func (b *bench) openCart(ctx context.Context, db *database) error {
	store, err := b.open(ctx, db)
	if err != nil {
		return err
	}
	_, err = store.Append(ctx, eventstore.Request{Stream: cart.NewID(), Events: cartPayloads(), Metadata: benchMeta})
	return errors.Join(err, store.Close(ctx))
}

// workOf is what all servers together have cost so far.
func workOf(ctx context.Context, db *database, nodes []*node) (all work, err error) {
	for _, n := range nodes {
		spent, err := processorOf(n.cmd.Process.Pid)
		if err != nil {
			return all, err
		}
		all.processor += spent
	}
	err = db.pool.QueryRow(ctx, sqlWork).Scan(&all.transactions, &all.statements)
	return all, err
}

// processorOf is the time that a process has spent on processors, as Linux tells.
func processorOf(process int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process))
	if err != nil {
		return 0, fmt.Errorf("asking what a server spent, which works on Linux only: %w", err)
	}
	_, after, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(after)
	spent := int64(0)
	for _, i := range []int{11, 12} {
		ticks, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		spent += ticks
	}
	return time.Duration(spent) * clockTick, nil
}
