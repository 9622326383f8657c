package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/queries"
)

// app is the composed server. wire makes it, run runs it once.
type app struct {
	config   *Config
	log      *slog.Logger
	pool     *pgxpool.Pool
	reads    *pgxpool.Pool     // for views alone
	replicas *queries.Replicas // nil: there are none
	store    *eventstore.Store
	brokers  []pubSub
	graph    *graph.Handler
	tail     *queries.Tail
	node     *outbox.Node

	// takeBack has a message that could not be worked on delivered again later. Nil: the dispatcher waits for the answer
	// to each message, and a refusal is enough.
	takeBack  func(ctx context.Context, topic string, m *message.Message, reason error) error
	receivers []receiver
	provided  []provided
	prepare   []func(context.Context) error // before the first request
	workers   []*worker
	draining  atomic.Bool
}

// pubSub is a broker.
type pubSub interface {
	message.Publisher
	message.Subscriber
}

// worker is a part that runs beside the requests from start to end.
type worker struct {
	name  string
	run   func(context.Context) error
	aside bool // no request needs it: what is wrong with it is told, and the server is ready
	first bool // stops when requests begin to be drained, and finishes meanwhile what it has in hand; no request needs it

	mu       sync.Mutex
	running  bool
	statuses []func() outbox.Status // of followers of the log, one for each shard; nil for other work
}

// reaction is a policy's answer to the events of some types.
type reaction struct {
	types     []string
	from      outbox.From // where it begins when it is new
	react     func(context.Context, eventstore.Event) error
	onFailure outbox.OnFailure
}

func (a *app) work(name string, run func(context.Context) error) *worker {
	w := &worker{name: name, run: run}
	a.workers = append(a.workers, w)
	return w
}

// consumers makes the workers that follow the log.
type consumers struct {
	app      *app
	broker   message.Subscriber
	progress *queries.Progress
	config   outbox.ConsumerConfig
}

// project keeps a view up to date, whichever of its tables serves: a consumer for each shard, which share the work with
// those of other processes.
func (c consumers) project(projection queries.Projection) {
	var w *worker
	w = c.app.work("projection "+projection.Name, func(ctx context.Context) error {
		return c.progress.Follow(ctx, projection, func(ctx context.Context, p queries.Projection) error {
			shards := make([]*outbox.Consumer, max(1, p.Shards))
			for shard := range shards {
				shards[shard] = outbox.NewConsumer(c.app.pool, c.app.store, c.broker, outbox.Subscription{
					Name: p.Checkpoint(), Types: p.Types, Apply: p.Apply, Shard: shard, Shards: len(shards),
					OnFailure: outbox.OnFailure(p.OnFailure), Forget: p.Forget,
					Parked:    func(now outbox.ParkedStreams) { c.progress.Parked(p.Checkpoint(), shard, parkedStreams(now)) },
					Committed: func(at eventstore.Token) { c.progress.AdvanceShard(p.Checkpoint(), shard, len(shards), at) },
				}, c.config)
				defer c.progress.OnWait(p.Checkpoint(), shards[shard].Flush)()
			}
			var statuses []func() outbox.Status
			all, ctx := errgroup.WithContext(ctx)
			for _, consumer := range shards {
				statuses = append(statuses, consumer.Status)
				all.Go(func() error { return consumer.Run(ctx) })
			}
			w.watch(statuses...)
			return all.Wait()
		})
	})
}

// parkedStreams is what a consumer says of parked streams, as views take it.
func parkedStreams(now outbox.ParkedStreams) queries.ParkedStreams {
	out := queries.ParkedStreams{Changes: now.Changes, Moved: now.Moved, Streams: make([]queries.ParkedStream, len(now.Streams))}
	for i, s := range now.Streams {
		out.Streams[i] = queries.ParkedStream(s)
	}
	return out
}

// react runs a policy: commands in answer to events.
func (c consumers) react(name string, to reaction) {
	consumer := outbox.NewConsumer(c.app.pool, c.app.store, c.broker, outbox.Subscription{
		Name: name, Types: to.types, React: to.react, From: to.from, OnFailure: to.onFailure,
	}, c.config)
	c.app.work("policy "+name, consumer.Run).watch(consumer.Status)
	if to.from == outbox.FromNow {
		c.app.prepare = append(c.app.prepare, consumer.Prepare)
	}
}

// watch has the worker's state be what these say, of followers of the log.
func (w *worker) watch(statuses ...func() outbox.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.statuses = statuses
}

// followers are the states of the worker's followers of the log, none for other work and for what does not run.
func (w *worker) followers() (running bool, states []outbox.Status) {
	w.mu.Lock()
	running, statuses := w.running, w.statuses
	w.mu.Unlock()
	if !running {
		return false, nil
	}
	for _, status := range statuses {
		states = append(states, status())
	}
	return true, states
}

// relay has the log brought to a broker.
func (a *app) relay(name string, r *outbox.Relay) *worker {
	w := a.work(name, r.Run)
	w.watch(r.Status)
	return w
}

// start runs the worker until the context ends. A worker that ends before that is named by /readyz; the others go on,
// so that commands are still answered.
func (w *worker) start(ctx context.Context, log *slog.Logger) {
	w.set(true)
	err := w.run(ctx)
	if ctx.Err() == nil {
		log.Error("a part of the server ended; the rest goes on", "part", w.name, "error", err)
	}
	w.set(false)
}

func (w *worker) set(running bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = running
}

// run serves on the listener until the context ends, and then drains: it stops accepting, lets requests and messages in
// hand finish, stops what runs beside them, which gives the leases back, and flushes the appender. It gives up the log, the reads' pool
// and the listener in any case; the pool is the caller's. The error has exitCutOff when the deadline of the drain passed.
func (a *app) run(ctx context.Context, listener net.Listener) error {
	beside, stopBeside := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBeside()
	first, stopFirst := context.WithCancel(beside)
	defer stopFirst()
	var workers, receivers sync.WaitGroup
	err := a.startReceivers(beside, &receivers)
	for _, prepare := range a.prepare {
		err = errors.Join(err, prepare(ctx))
	}
	if err != nil {
		a.reads.Close()
		return errors.Join(err, listener.Close(), a.store.Close(ctx))
	}
	for _, w := range a.workers {
		until := beside
		if w.first {
			until = first
		}
		workers.Go(func() { w.start(until, a.log) })
	}
	workers.Go(func() { a.renewReads(beside) })
	for _, made := range a.provided {
		workers.Go(func() { a.makeTopics(beside, made) })
	}
	server := &http.Server{
		Handler:           a.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-served:
	}
	a.log.Info("draining", "deadline", a.config.DrainTimeout.String())
	a.draining.Store(true)
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.config.DrainTimeout)
	defer cancel()
	stopFirst()
	cutOff := a.stopServing(deadline, server)
	stopBeside()
	workers.Wait()
	closing := a.closeBrokers()
	receivers.Wait()
	closing = append(closing, a.store.Close(deadline))
	a.reads.Close()
	if failed != nil {
		failed = fmt.Errorf("serving: %w", failed)
	}
	return errors.Join(failed, cutOff, errors.Join(closing...))
}

// renewReads makes the connections for reads anew whenever the log has another history: they may lead to the server that
// was replaced.
func (a *app) renewReads(ctx context.Context) {
	for {
		_, raised := a.store.Epoch()
		select {
		case <-raised:
			a.reads.Reset()
		case <-ctx.Done():
			return
		}
	}
}

// closeBrokers closes all at once, since each may wait for servers that do not answer.
func (a *app) closeBrokers() []error {
	failures := make([]error, len(a.brokers))
	var closing sync.WaitGroup
	for i, broker := range a.brokers {
		closing.Go(func() { failures[i] = broker.Close() })
	}
	closing.Wait()
	return failures
}

// stopServing ends streams, waits for requests, and cuts off those that are not done by the deadline. Shutdown itself
// waits for event streams without ending them, and knows nothing of WebSockets.
func (a *app) stopServing(deadline context.Context, server *http.Server) error {
	drained := make(chan error, 1)
	go func() { drained <- a.graph.Drain(deadline) }()
	err := errors.Join(server.Shutdown(deadline), <-drained)
	if err == nil {
		return nil
	}
	return &exitError{exitCutOff, errors.Join(fmt.Errorf("requests were cut off after %v: %w", a.config.DrainTimeout, err), server.Close())}
}
