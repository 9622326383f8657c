package queries

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// comparison goes along two tables by their primary key.
type comparison struct {
	tx       pgx.Tx
	serving  string // quoted
	table    string // quoted
	key      []diffColumn
	columns  []diffColumn // that both have, but for the key
	chunk    int
	samples  int
	estimate int64 // rows
	found    *Difference
}

// diffColumn is a column as it is named in SQL.
type diffColumn struct {
	name    string
	sqlType string
	differs string // the expression that says so of s and n
}

// kinds are how rows may differ, and when they do; s is the serving table and n the new one.
var kinds = []struct{ name, when string }{
	{"added", "s.is_there is null"}, {"missing", "n.is_there is null"}, {"changed", "s.is_there and n.is_there and (%s)"},
}

// tableColumn is a row of sqlDiffColumns.
type tableColumn struct {
	Name    string `db:"name"`
	SQLType string `db:"type"`
	Plain   bool   `db:"plain"` // its type has an equality
	Key     int    `db:"key"`   // its place in the primary key; 0: none
}

// comparison finds out which columns can be compared.
func (r *rebuild) comparison(ctx context.Context, tx pgx.Tx, f *fill, cfg DiffConfig, found *Difference) (*comparison, error) {
	c := &comparison{
		tx: tx, serving: pgx.Identifier{found.Serving}.Sanitize(), table: pgx.Identifier{found.Table}.Sanitize(),
		chunk: cfg.Chunk, samples: cfg.Samples, found: found,
	}
	old, err := tableColumns(ctx, tx, found.Serving)
	if err != nil {
		return nil, err
	}
	next, err := tableColumns(ctx, tx, found.Table)
	if err != nil {
		return nil, err
	}
	if err := tx.QueryRow(ctx, sqlRowEstimate, found.Serving).Scan(&c.estimate); err != nil {
		return nil, fmt.Errorf("estimate the rows of %s: %w", found.Serving, err)
	}
	for _, column := range old {
		at := slices.IndexFunc(next, func(other tableColumn) bool { return other.Name == column.Name })
		if at < 0 {
			found.OnlyServing = append(found.OnlyServing, column.Name)
			continue
		}
		if other := next[at]; other.Key != column.Key || column.Key > 0 && other.SQLType != column.SQLType {
			return nil, &NoTableError{f.p.Name, fmt.Sprintf("%s and %s have different primary keys", found.Serving, found.Table)}
		}
		c.add(column, next[at])
	}
	for _, column := range next {
		if !slices.ContainsFunc(old, func(other tableColumn) bool { return other.Name == column.Name }) {
			found.OnlyTable = append(found.OnlyTable, column.Name)
		}
	}
	if len(c.key) == 0 {
		return nil, &NoTableError{f.p.Name, fmt.Sprintf("%s has no primary key to compare rows by", found.Serving)}
	}
	return c, nil
}

func (c *comparison) add(old, next tableColumn) {
	name := pgx.Identifier{old.Name}.Sanitize()
	column := diffColumn{name: name, sqlType: old.SQLType, differs: fmt.Sprintf("s.%[1]s is distinct from n.%[1]s", name)}
	if !old.Plain || old.SQLType != next.SQLType {
		column.differs = fmt.Sprintf("s.%[1]s::text is distinct from n.%[1]s::text", name)
	}
	if old.Key > 0 {
		c.key = append(c.key, column)
	} else {
		c.columns = append(c.columns, column)
	}
}

func tableColumns(ctx context.Context, tx pgx.Tx, table string) ([]tableColumn, error) {
	rows, err := tx.Query(ctx, sqlDiffColumns, table)
	if err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", table, err)
	}
	columns, err := pgx.CollectRows(rows, pgx.RowToStructByName[tableColumn])
	if err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", table, err)
	}
	slices.SortStableFunc(columns, func(a, b tableColumn) int { return a.Key - b.Key }) // the key in its own order
	return columns, nil
}

// run compares chunk by chunk.
func (c *comparison) run(ctx context.Context, done func()) error {
	var after, until []string
	for {
		var err error
		if until, err = c.end(ctx, after); err != nil {
			return err
		}
		if err := c.compare(ctx, after, until); err != nil {
			return fmt.Errorf("compare %s with %s: %w", c.table, c.serving, err)
		}
		done()
		if until == nil {
			return nil
		}
		after = until
	}
}

// end is the key with which a chunk ends that has as many rows in both tables together as a chunk may have; nil: it is the
// last.
func (c *comparison) end(ctx context.Context, after []string) ([]string, error) {
	where, args := c.within(after, nil)
	keys := c.keys("%s")
	texts := make([]string, len(c.key))
	targets := make([]any, len(c.key))
	end := make([]string, len(c.key))
	for i, k := range c.key {
		texts[i], targets[i] = k.name+"::text", &end[i]
	}
	sql := fmt.Sprintf(sqlChunkEnd, c.serving, c.table, keys, where, c.chunk, strings.Join(texts, ", "), c.chunk-1)
	rows, err := c.tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("find the end of a chunk: %w", err)
	}
	found := false
	_, err = pgx.ForEachRow(rows, targets, func() error { found = true; return nil })
	if err != nil {
		return nil, fmt.Errorf("find the end of a chunk: %w", err)
	}
	if !found {
		return nil, nil
	}
	return end, nil
}

// keys lists the key's columns, each as the format has it.
func (c *comparison) keys(format string) string {
	names := make([]string, len(c.key))
	for i, k := range c.key {
		names[i] = strings.ReplaceAll(format, "%s", k.name)
	}
	return strings.Join(names, ", ")
}

// within is the condition that a row lies after one key and up to another; nil stands for no bound.
func (c *comparison) within(after, until []string) (where string, args []any) {
	conditions := []string{"true"}
	bound := func(operator string, values []string) {
		if values == nil {
			return
		}
		places := make([]string, len(values))
		for i, v := range values {
			args = append(args, v)
			places[i] = "$" + strconv.Itoa(len(args)) + "::text::" + c.key[i].sqlType
		}
		conditions = append(conditions, fmt.Sprintf("(%s) %s (%s)", c.keys("%s"), operator, strings.Join(places, ", ")))
	}
	bound(">", after)
	bound("<=", until)
	return strings.Join(conditions, " and "), args
}

// joined is both tables' rows of a chunk side by side.
func (c *comparison) joined(where string) string {
	on := make([]string, len(c.key))
	for i, k := range c.key {
		on[i] = fmt.Sprintf("s.%[1]s = n.%[1]s", k.name)
	}
	return fmt.Sprintf(sqlSideBySide, c.serving, c.table, where, strings.Join(on, " and "))
}

// changed is the condition that any column that both rows have differs.
func (c *comparison) changed() string {
	differs := []string{"false"}
	for _, column := range c.columns {
		differs = append(differs, column.differs)
	}
	return strings.Join(differs, " or ")
}

// compare counts a chunk's differences, and takes samples while there are too few.
func (c *comparison) compare(ctx context.Context, after, until []string) error {
	where, args := c.within(after, until)
	counts := make([]int64, 1+len(kinds)+len(c.columns))
	targets := make([]any, len(counts))
	for i := range counts {
		targets[i] = &counts[i]
	}
	selected := []string{"count(*)"}
	for _, kind := range kinds {
		selected = append(selected, "count(*) filter (where "+strings.ReplaceAll(kind.when, "%s", c.changed())+")")
	}
	for _, column := range c.columns {
		selected = append(selected, fmt.Sprintf("count(*) filter (where s.is_there and n.is_there and %s)", column.differs))
	}
	if err := c.tx.QueryRow(ctx, "select "+strings.Join(selected, ", ")+c.joined(where), args...).Scan(targets...); err != nil {
		return err
	}
	f := c.found
	f.Rows, f.Added, f.Missing, f.Changed = f.Rows+counts[0], f.Added+counts[1], f.Missing+counts[2], f.Changed+counts[3]
	for i, column := range c.columns {
		if n := counts[1+len(kinds)+i]; n > 0 {
			f.Columns[plainName(column.name)] += n
		}
	}
	for i, kind := range kinds {
		if counts[1+i] == 0 {
			continue
		}
		if err := c.sample(ctx, kind.name, strings.ReplaceAll(kind.when, "%s", c.changed()), where, args); err != nil {
			return err
		}
	}
	return nil
}

func plainName(quoted string) string {
	return strings.ReplaceAll(strings.Trim(quoted, `"`), `""`, `"`)
}

// sample shows rows of a kind until there are enough.
func (c *comparison) sample(ctx context.Context, kind, when, where string, args []any) error {
	wanted := c.samples
	for _, s := range c.found.Samples {
		if s.Kind == kind {
			wanted--
		}
	}
	if wanted <= 0 {
		return nil
	}
	differs, old, next := []string{}, []string{}, []string{}
	for _, column := range c.columns {
		differs = append(differs, column.differs)
		old = append(old, fmt.Sprintf("left(s.%s::text, %d)", column.name, diffValue))
		next = append(next, fmt.Sprintf("left(n.%s::text, %d)", column.name, diffValue))
	}
	list := func(items []string, of string) string {
		return "array[" + strings.Join(items, ", ") + "]::" + of + "[]"
	}
	sql := fmt.Sprintf(sqlSample, list([]string{c.keys("coalesce(s.%s, n.%s)::text")}, "text"),
		list(differs, "bool"), list(old, "text"), list(next, "text"), c.joined(where), when, wanted)
	rows, err := c.tx.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	var key []string
	var different []bool
	var before, after []*string
	_, err = pgx.ForEachRow(rows, []any{&key, &different, &before, &after}, func() error {
		s := RowDiff{Kind: kind, Key: slices.Clone(key), Columns: []ColumnDiff{}, Events: []CauseEvent{}}
		for i, column := range c.columns {
			if kind != "changed" || different[i] {
				s.Columns = append(s.Columns, ColumnDiff{Name: plainName(column.name), Old: before[i], New: after[i]})
			}
		}
		c.found.Samples = append(c.found.Samples, s)
		return nil
	})
	return err
}

// positions are what the row has, or had, as its column "position", or as a key of one number.
func (s *RowDiff) positions() (found []int64) {
	add := func(text *string) {
		if text == nil {
			return
		}
		if n, err := strconv.ParseInt(*text, 10, 64); err == nil && !slices.Contains(found, n) {
			found = append(found, n)
		}
	}
	for _, c := range s.Columns {
		if c.Name == "position" {
			add(c.Old)
			add(c.New)
		}
	}
	if len(s.Key) == 1 {
		add(&s.Key[0])
	}
	return found
}
