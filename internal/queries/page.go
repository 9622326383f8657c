package queries

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// PageArgs asks for a part of an ordered list, as in the connections of Relay. The zero value is the first page.
type PageArgs struct {
	First, Last   *int    // how many, from the beginning or from the end; not both
	After, Before *string // cursors of an earlier page in the same order; exclusive
}

// Slice is a part of an ordered list.
type Slice[R any] struct {
	Rows    []R
	Cursors []string // of each row
	// HasNext and HasPrevious are exact in the direction of reading. In the other they say that a cursor bounded the page.
	HasNext, HasPrevious bool
}

// PageConfig bounds pages. The zero value works.
type PageConfig struct {
	Default int // rows of a page that says neither first nor last; 0 stands for 20
	Max     int // rows of a page at most; more is refused, not cut; 0 stands for 100
}

func (c PageConfig) withDefaults() PageConfig {
	if c.Max == 0 {
		c.Max = 100
	}
	if c.Default == 0 {
		c.Default = min(20, c.Max)
	}
	return c
}

// ArgumentError says that a caller asked for a page that cannot be. It is the caller's mistake, and the text is fit for
// them.
type ArgumentError struct {
	Argument string // "first", "after", "orderBy"
	Reason   string
}

func (e *ArgumentError) Error() string { return e.Argument + " " + e.Reason }

// Order is one order in which rows can be listed.
type Order[R any] struct {
	Name    string   // as callers ask for it; part of the cursor
	Columns []string // compared from left to right; together unique, and covered by an index
	Desc    bool     // of all columns
	// Key gives the values of Columns as int64, string or time.Time.
	Key func(row R) []any
}

// FindOrder returns the order of this name, or the first for the empty name. Another name is an *ArgumentError.
func FindOrder[R any](orders []Order[R], name string) (Order[R], error) {
	if name == "" {
		return orders[0], nil
	}
	for _, o := range orders {
		if o.Name == name {
			return o, nil
		}
	}
	return Order[R]{}, &ArgumentError{Argument: "orderBy", Reason: fmt.Sprintf("%q is not an order", name)}
}

// Where gathers conditions that rows must meet. The zero value lets all through.
type Where struct {
	conditions []string
	args       []any
}

// And adds a condition with one argument, whose place is written $%d.
func (w *Where) And(condition string, arg any) {
	if !storable(arg) {
		w.conditions = append(w.conditions, "false")
		return
	}
	w.args = append(w.args, arg)
	w.conditions = append(w.conditions, fmt.Sprintf(condition, len(w.args)))
}

// AndOwner adds that a column names this subject. Nil lets all through; to nobody, the empty subject, nothing belongs, not
// even rows whose column is empty.
func (w *Where) AndOwner(column string, subject *string) {
	switch {
	case subject == nil:
	case *subject == "":
		w.conditions = append(w.conditions, "false")
	default:
		w.And(column+" = $%d", *subject)
	}
}

// Owns tells of a row at hand what AndOwner adds as a condition.
func Owns(subject *string, owner string) bool {
	return subject == nil || (*subject != "" && *subject == owner)
}

// AndAnyOf adds that a column has one of these values. None lets all through. One value is compared plainly, so that
// an index on the column and the order serves.
func (w *Where) AndAnyOf(column string, values []string) {
	switch len(values) {
	case 0:
	case 1:
		w.And(column+" = $%d", values[0])
	default:
		w.And(column+" = any($%d)", values)
	}
}

func (w *Where) sql() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " where " + strings.Join(w.conditions, " and ")
}

// List reads a page of the rows that selectSQL (a select without where) gives. Conditions, order and limit are added to it.
// What callers ask wrongly is an *ArgumentError.
func List[R any](ctx context.Context, reads *Reads, cfg PageConfig, selectSQL string, where Where, order Order[R], args PageArgs) (Slice[R], error) {
	limit, backward, err := args.limit(cfg.withDefaults())
	if err != nil {
		return Slice[R]{}, err
	}
	if err := order.bound(&where, args); err != nil {
		return Slice[R]{}, err
	}
	sql := selectSQL + where.sql() + order.sql(backward) + fmt.Sprintf(" limit %d", limit+1)
	rows, err := collect[R](ctx, reads, "read page", sql, where.args...)
	if err != nil {
		return Slice[R]{}, err
	}
	more := len(rows) > limit
	if more {
		rows = rows[:limit]
	}
	slice := Slice[R]{Rows: rows, HasNext: more, HasPrevious: args.After != nil}
	if backward {
		slices.Reverse(rows)
		slice.HasNext, slice.HasPrevious = args.Before != nil, more
	}
	slice.Cursors = make([]string, len(rows))
	for i, row := range rows {
		slice.Cursors[i] = encodeCursor(order.Name, order.Key(row))
	}
	return slice, nil
}

// Since reads up to limit rows whose column, a unique position, is greater than after, in its order.
func Since[R any](ctx context.Context, reads *Reads, selectSQL string, where Where, column string, after int64, limit int) ([]R, error) {
	where.And(column+" > $%d", after)
	sql := selectSQL + where.sql() + " order by " + column + fmt.Sprintf(" limit %d", limit)
	return collect[R](ctx, reads, "read since", sql, where.args...)
}

// Count runs countSQL (a select count(*) without where) with the conditions.
func Count(ctx context.Context, reads *Reads, countSQL string, where Where) (int64, error) {
	return Query(ctx, reads, "count", countSQL+where.sql(), where.args, func(rows pgx.Rows) (int64, error) {
		return pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64])
	})
}

// One reads the row that sql finds by its only argument, or nil when there is none. What names the reading in errors.
func One[R any](ctx context.Context, reads *Reads, what, sql string, key any) (*R, error) {
	if !storable(key) {
		return nil, nil
	}
	return Query(ctx, reads, what, sql, []any{key}, func(rows pgx.Rows) (*R, error) {
		row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[R])
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil
		}
		return row, err
	})
}

// Many reads the rows that sql finds by a list of keys, its only argument, with one statement. It returns them in the order of
// the keys, nil where there is none.
func Many[R any, K comparable](ctx context.Context, reads *Reads, what, sql string, keys []K, key func(*R) K) ([]*R, error) {
	found := make(map[K]*R, len(keys))
	ask := slices.DeleteFunc(slices.Clone(keys), func(k K) bool { return !storable(k) })
	if len(ask) > 0 {
		got, err := Query(ctx, reads, what, sql, []any{ask}, func(rows pgx.Rows) ([]*R, error) {
			return pgx.CollectRows(rows, pgx.RowToAddrOfStructByName[R])
		})
		if err != nil {
			return nil, err
		}
		for _, row := range got {
			found[key(row)] = row
		}
	}
	out := make([]*R, len(keys))
	for i, k := range keys {
		out[i] = found[k]
	}
	return out, nil
}

func collect[R any](ctx context.Context, reads *Reads, what, sql string, args ...any) ([]R, error) {
	return Query(ctx, reads, what, sql, args, func(rows pgx.Rows) ([]R, error) {
		return pgx.CollectRows(rows, pgx.RowToStructByName[R])
	})
}

func (a PageArgs) limit(cfg PageConfig) (limit int, backward bool, err error) {
	if a.First != nil && a.Last != nil {
		return 0, false, &ArgumentError{Argument: "last", Reason: "cannot be given together with first"}
	}
	name, n := "first", a.First
	if a.Last != nil {
		name, n = "last", a.Last
	}
	switch {
	case n == nil:
		return cfg.Default, false, nil
	case *n < 0:
		return 0, false, &ArgumentError{Argument: name, Reason: "must not be negative"}
	case *n > cfg.Max:
		return 0, false, &ArgumentError{Argument: name, Reason: fmt.Sprintf("must be at most %d", cfg.Max)}
	}
	return *n, a.Last != nil, nil
}

// Strings turns values of a string type, such as a view's statuses, into strings.
func Strings[S ~string](values []S) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}
