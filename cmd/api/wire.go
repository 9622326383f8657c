package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/cart"
	"github.com/headrace/headrace/internal/commands/checkout"
	"github.com/headrace/headrace/internal/commands/fulfilment"
	"github.com/headrace/headrace/internal/commands/order"
	"github.com/headrace/headrace/internal/commands/user"
	"github.com/headrace/headrace/internal/contract"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/outbox/kafka"
	"github.com/headrace/headrace/internal/outbox/natsjs"
	"github.com/headrace/headrace/internal/queries"
	"github.com/headrace/headrace/internal/queries/activityview"
	"github.com/headrace/headrace/internal/queries/cartview"
	"github.com/headrace/headrace/internal/queries/fulfilmentview"
	"github.com/headrace/headrace/internal/queries/orderview"
	"github.com/headrace/headrace/internal/queries/userview"
)

// newRegistry knows every event of every domain.
func newRegistry() (*eventstore.Registry, error) {
	return eventstore.NewRegistry(slices.Concat(cart.Events(), order.Events(), fulfilment.Events(), user.Events())...)
}

// newProjections are all views.
func newProjections(registry *eventstore.Registry) ([]queries.Projection, error) {
	carts, err1 := cartview.View().Projection(registry)
	orders, err2 := orderview.View().Projection(registry)
	users, err3 := userview.View().Projection(registry)
	activity, err4 := activityview.Projection(registry)
	fulfilments, err5 := fulfilmentview.View().Projection(registry)
	return []queries.Projection{carts, orders, users, activity, fulfilments}, errors.Join(err1, err2, err3, err4, err5)
}

// newContract is what other programs are told. A mapping that makes no sense is noticed also where nothing is published.
func newContract(registry *eventstore.Registry, source string) (*outbox.Contract, error) {
	source = cmp.Or(source, "urn:unpublished")
	return outbox.NewContract(registry, outbox.ContractConfig{Source: source, Schemas: contract.Schemas}, contract.Mappings()...)
}

// views makes the projections of all views that a program has.
type views func(registry *eventstore.Registry) ([]queries.Projection, error)

// wire composes the server: the whole program in one place, and nothing of it runs yet. The log is opened, which
// close gives up again.
func wire(ctx context.Context, config *Config, all views, pool *pgxpool.Pool, owner string, log *slog.Logger) (_ *app, err error) {
	registry, err := newRegistry()
	if err != nil {
		return nil, err
	}
	projections, err := all(registry)
	if err != nil {
		return nil, err
	}
	tell, err := newContract(registry, config.PublicSource)
	if err != nil {
		return nil, err
	}
	store, err := eventstore.Open(ctx, pool, registry, eventstore.Config{})
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, store.Close(ctx))
		}
	}()

	// Deciding: a handler for each write model.
	carts := commands.NewHandler(store, cart.Decider(), commands.Config{})
	users := commands.NewHandler(store, user.Decider(), commands.Config{})
	orders := commands.NewHandler(store, order.Decider(), commands.Config{})
	fulfilments := commands.NewHandler(store, fulfilment.Decider(fulfilment.Config{
		PayWithin: config.CancelUnpaidAfter, ShipWithin: config.ShipWithin,
	}), commands.Config{})

	// Answering: how far the views are, what changed in them, and what happens in the log.
	progress := queries.NewProgress(pool, store, queries.ProgressConfig{FollowPoll: switchPoll, Logger: log})
	tail := queries.NewTail(store, queries.TailConfig{PollMax: idlePoll, Logger: log})
	feed := queries.NewFeed(store, tail, progress, projections...)

	outer, verifier, err := config.outside(ctx, log)
	if err != nil {
		return nil, err
	}
	connections, err := openReads(ctx, pool.Config(), connectionsForReads(config.MaxConnections), config.StatementTimeout)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			connections.Close()
		}
	}()
	replicas, err := config.openReplicas(pool, log)
	if err != nil {
		return nil, err
	}
	reads, page := queries.NewReads(connections), config.page()
	outside, err := graph.NewHandler(&graph.Resolver{
		Store: store, Progress: progress, Feed: feed, Tail: tail, Replicas: replicas,
		CartCommands: carts, OrderCommands: orders, UserCommands: users,
		Carts:       cartview.NewReader(reads, page),
		Orders:      orderview.NewReader(reads, page),
		Users:       userview.NewReader(reads, page),
		Fulfilments: fulfilmentview.NewReader(reads),
		Activities:  activityview.NewReader(reads, page),
	}, outer)
	if err != nil {
		return nil, err
	}

	// Delivering: the log to all that follow it, and messages to those that work on them.
	logBroker, messages, public, err := openBrokers(config, log)
	if err != nil {
		return nil, err
	}
	node := outbox.NewNode(pool, store, outbox.NodeConfig{ID: owner, TTL: config.LeaseTTL, ListenURL: config.DirectURL, Logger: log})
	relay := outbox.RelayConfig{Node: node, PollMax: idlePoll, Logger: log}
	a := &app{
		config: config, log: log, pool: pool, reads: connections, replicas: replicas, store: store, graph: outside, tail: tail, node: node,
		brokers: []pubSub{logBroker, messages},
	}
	if config.shared() {
		relay.Pool, relay.Name = pool, "relay_"+config.Broker
	}
	a.work("node", node.Run)
	a.relay("relay", outbox.NewRelay(store, logBroker, relay))
	if public != nil {
		relay.Contract, relay.Topic, relay.Name = tell, config.PublicTopic, relay.Name+"_public"
		a.brokers = append(a.brokers, public)
		a.provide(public, config.PublicTopic)
		a.relay("relay of public events", outbox.NewRelay(store, public, relay)).aside = true
	}
	if verifier != nil {
		a.work("keys", verifier.Run)
	}
	if replicas != nil {
		a.work("replicas", replicas.Run)
	}
	a.work("tail", tail.Run)
	a.work("feed", feed.Run)
	consume := consumers{app: a, broker: logBroker, progress: progress, config: outbox.ConsumerConfig{
		Batch: projectionBatch, ParkedMax: config.ParkedMax, Node: node, Logger: log,
	}}
	for _, projection := range projections {
		consume.project(projection)
	}
	consume.react(checkout.Name, react(registry, func(ctx context.Context, e eventstore.Event, p cart.CheckedOut) error {
		stream, command, call := checkout.Place(e, p)
		_, err := orders.Handle(ctx, stream, command, call)
		return err
	}))

	a.receive(messages, user.TopicWelcome, receive(func(_ context.Context, m *message.Message, welcome user.WelcomeMessage) error {
		// Here a real shop hands the letter to its mail provider, with the message's id as the key of idempotence.
		log.Info("welcome letter sent", "message", m.UUID, "user", welcome.UserID)
		return nil
	}))
	a.receive(messages, order.TopicCancelUnpaid, receive(func(ctx context.Context, m *message.Message, unpaid order.UnpaidMessage) error {
		_, err := orders.Handle(ctx, unpaid.OrderID, order.CancelUnpaid{},
			commands.Call{CommandID: "cancel_unpaid:" + m.UUID, Who: identity.System("policy:cancel_unpaid"), CausationID: m.UUID})
		return unlessRefused(err)
	}))
	routes := a.fulfil(consume, registry, messages, orders, fulfilments)
	if err := a.takeIn(routes); err != nil {
		return nil, err
	}
	a.dispatch(messages)
	return a, nil
}

// inboxTopics are those with whose messages something is done.
func inboxTopics() []string { return fulfilment.Topics() }

// openBrokers returns what carries the log, the messages, and the public events, which is nil unless they are asked for. All
// that follow the log trust Postgres, so its carrier may forget what is old; messages are taken out of the database when they
// are acknowledged, so theirs may not.
func openBrokers(config *Config, log *slog.Logger) (ofLog, ofMessages, ofPublic pubSub, err error) {
	if !config.shared() {
		return outbox.NewLocal(outbox.LocalConfig{}), outbox.NewLocal(outbox.LocalConfig{AwaitAck: true}), nil, nil
	}
	ofLog, err1 := config.open(brokerUse{fresh: true, partitions: 1}, log)
	ofMessages, err2 := config.open(brokerUse{group: receiverGroup, refuse: true}, log)
	if config.PublicTopic != "" {
		ofPublic, err = config.open(brokerUse{}, log)
	}
	return ofLog, ofMessages, ofPublic, errors.Join(err1, err2, err)
}

// brokerUse is what a connection to a broker is for.
type brokerUse struct {
	group      string // shares each message among its members; empty: all see all
	fresh      bool   // begins with what is new
	refuse     bool   // a full topic refuses what is new, and does not drop what is old
	foreign    bool   // the topics are those of others
	partitions int32  // of topics that are made
}

// open connects to the broker that processes share.
func (c *Config) open(use brokerUse, log *slog.Logger) (pubSub, error) {
	if c.Broker == brokerKafka {
		return kafka.Open(kafka.Config{
			Brokers: c.KafkaBrokers, TLS: c.KafkaTLS, CA: c.KafkaCA, User: c.KafkaUser, Password: c.KafkaPassword,
			Group: use.group, New: use.fresh, Partitions: use.partitions, Logger: log,
		})
	}
	return natsjs.Open(natsjs.Config{
		URL: c.NATSURL, Credentials: c.NATSCredentials, Replicas: c.NATSReplicas,
		Group: use.group, New: use.fresh, InFlight: receiversAtWork, Refuse: use.refuse, Foreign: use.foreign, Logger: log,
	})
}

// react is what a policy does with events of payload P, from the beginning of the log.
func react[P eventstore.Payload](registry *eventstore.Registry, f func(context.Context, eventstore.Event, P) error) reaction {
	var zero P
	types := []string{zero.EventType()}
	return reactAll(registry, outbox.FromBeginning, types, func(ctx context.Context, e eventstore.Event, p eventstore.Payload) error {
		payload, ok := p.(P)
		if !ok {
			return fmt.Errorf("event %s at %d decodes to %T", e.Type, e.Position, p)
		}
		return f(ctx, e, payload)
	})
}

// reactAll is what a policy does with events of some types, in the order of the log. One that it cannot handle waits with those
// after it in its stream, and holds up no other.
func reactAll(
	registry *eventstore.Registry, from outbox.From, types []string, f func(context.Context, eventstore.Event, eventstore.Payload) error,
) reaction {
	return reaction{types: types, from: from, onFailure: outbox.Park, react: func(ctx context.Context, e eventstore.Event) error {
		payload, err := registry.Decode(e)
		if err != nil {
			return err
		}
		return f(ctx, e, payload)
	}}
}

// receive is what is done with messages whose payload is a P.
func receive[P any](f func(context.Context, *message.Message, P) error) func(context.Context, *message.Message) error {
	return func(ctx context.Context, m *message.Message) error {
		var payload P
		if err := json.Unmarshal(m.Payload, &payload); err != nil {
			return fmt.Errorf("reading the payload: %w", err)
		}
		return f(ctx, m, payload)
	}
}

// unlessRefused takes a refusal for an answer: the order was paid, or is over already.
func unlessRefused(err error) error {
	var refused *commands.Rejection
	if errors.As(err, &refused) {
		return nil
	}
	return err
}

// deadIfRefused takes a refusal for the end of a message from outside, for a person to look at. A refusal of one of the codes
// may pass: what the message is about may be yet to come.
func deadIfRefused(err error, passing ...string) error {
	var refused *commands.Rejection
	var forbidden *commands.ForbiddenError
	var reused *eventstore.CommandIDReusedError
	var invalid *eventstore.InvalidRequestError
	switch {
	case errors.As(err, &refused):
		if !slices.Contains(passing, refused.Code) {
			return outbox.Dead(fmt.Errorf("refused with %s: %w", refused.Code, err))
		}
	case errors.As(err, &forbidden), errors.As(err, &reused), errors.As(err, &invalid):
		return outbox.Dead(err)
	}
	return err
}

// handler is everything that is served.
func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("GET /readyz", a.readyz)
	if a.config.development() && a.config.MetricsListen == "" {
		mux.Handle("GET /metrics", a.metrics())
	}
	mux.Handle("/", a.graph)
	return mux
}

// projectionBatch is how many events a projection that is behind takes at once: in thousands of events more of them are
// of the same rows, which are then written once. Live batches hold what has come.
const projectionBatch = 4000

// receiverGroup is the name under which the processes of this program share the work on messages at a shared broker, and
// receiversAtWork is how many messages of a topic they may have in hand together.
const (
	receiverGroup   = "headrace"
	receiversAtWork = 64
)

// idlePoll is how often what follows the log looks at it while nothing happens. The node wakes it at commits of all
// processes, so this only heals what a node cannot see. switchPoll is how often is looked whether another table of a view
// serves, and what operators and killed processes have left in the inbox.
const (
	idlePoll   = 10 * time.Second
	switchPoll = 5 * time.Second
)

// receiverTimeout bounds the work on one message; the dispatcher gives it up a little later.
const receiverTimeout = 15 * time.Second
