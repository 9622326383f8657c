package queries

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/headrace/headrace/internal/eventstore"
)

// Handler is what a projection does with one type of event; On makes it.
type Handler struct {
	eventType string
	queue     func(e eventstore.Event, p eventstore.Payload, q *Queue) error
}

// On queues SQL for events with payload P, for tables that do not hold one row per key. The function must depend on
// nothing but its arguments.
func On[P eventstore.Payload](queue func(e eventstore.Event, p P, q *Queue)) Handler {
	var zero P
	return Handler{
		eventType: zero.EventType(),
		queue: func(e eventstore.Event, payload eventstore.Payload, q *Queue) error {
			p, ok := payload.(P)
			if !ok {
				return fmt.Errorf("event %d: %s is registered as %T, the projection takes %T", e.Position, e.Type, payload, zero)
			}
			queue(e, p, q)
			return nil
		},
	}
}

// NewProjection makes a projection of handlers, one per event type. Its table has a generation like any view's, so SQL
// names it {table}.
func NewProjection(registry *eventstore.Registry, name string, version int, handlers ...Handler) (Projection, error) {
	if name == "" || version < 1 || len(handlers) == 0 {
		return Projection{}, errors.New("a projection needs a name, a version from 1 and handlers")
	}
	byType := make(map[string]Handler, len(handlers))
	types := make([]string, len(handlers))
	for i, h := range handlers {
		if _, twice := byType[h.eventType]; twice {
			return Projection{}, fmt.Errorf("projection %s has two handlers of %s", name, h.eventType)
		}
		byType[h.eventType], types[i] = h, h.eventType
	}
	apply := func(ctx context.Context, tx pgx.Tx, table string, events []eventstore.Event) error {
		q := &Queue{table: pgx.Identifier{table}.Sanitize(), sets: map[string]int{}}
		for _, e := range events {
			payload, err := decode(registry, e)
			if err != nil {
				return err
			}
			if err := byType[e.Type].queue(e, payload, q); err != nil {
				return err
			}
		}
		return q.send(ctx, tx)
	}
	return Projection{Name: name, Version: version, Generation: 1, Types: types, Shards: 1, key: stream, apply: apply}, nil
}

// Queue gathers the SQL of a batch of events, sent as one round trip in the order of queueing. In all SQL {table}
// stands for the table of the generation being filled.
type Queue struct {
	table string
	items []queued
	sets  map[string]int // SQL of Row to its place in items
}

type queued struct {
	sql  string
	args []any
}

// Exec queues a statement.
func (q *Queue) Exec(sql string, args ...any) {
	q.items = append(q.items, queued{sql: sql, args: args})
}

// Row queues one row of a statement that takes many at once: its parameters are arrays (unnest($1::bigint[], …)) and all
// rows of a batch with the same SQL are sent as one execution, at the place of the first. One statement for 500 events
// costs a small part of 500 statements.
func (q *Queue) Row(sql string, values ...any) {
	at, known := q.sets[sql]
	if !known {
		at = len(q.items)
		q.sets[sql] = at
		q.items = append(q.items, queued{sql: sql, args: make([]any, len(values))})
	}
	for i, v := range values {
		column, _ := q.items[at].args[i].([]any)
		q.items[at].args[i] = append(column, v)
	}
}

func (q *Queue) send(ctx context.Context, tx pgx.Tx) error {
	if len(q.items) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	batch.Queue(sqlNoSeqScan)
	for _, item := range q.items {
		batch.Queue(strings.ReplaceAll(item.sql, "{table}", q.table), item.args...)
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("run queued SQL: %w", err)
	}
	return nil
}
