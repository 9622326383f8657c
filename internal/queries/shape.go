package queries

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// shape is how a row struct lies in a table. It is made once per view, so that a batch pays for no reflection on types.
type shape[R any] struct {
	columns []column
	key     int // index in columns
	seen    int // index in columns of the position of the last event; -1: none
	cached  sync.Map
}

// column is one field of the row.
type column struct {
	name    string
	sqlType string
	field   []int
	// array gathers the column's values of n rows as what pgx sends as an array.
	array func(n int, at func(i int) reflect.Value) (any, error)
	equal func(a, b reflect.Value) bool
	json  bool
}

// statements are a view's SQL for one of its tables.
type statements struct{ load, check, upsert, remove string }

func shapeOf[R any]() (*shape[R], error) {
	t := reflect.TypeFor[R]()
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%s is not a struct", t)
	}
	s := &shape[R]{key: -1, seen: -1}
	for _, field := range reflect.VisibleFields(t) {
		tag, tagged := field.Tag.Lookup("db")
		if !tagged || tag == "-" {
			continue
		}
		name, option, _ := strings.Cut(tag, ",")
		if !field.IsExported() || name == "" {
			return nil, fmt.Errorf("field %s of %s cannot be a column", field.Name, t)
		}
		c := columnOf(field.Type)
		c.name, c.field = name, field.Index
		switch {
		case option == "key" && (field.Type.Kind() != reflect.String || s.key >= 0):
			return nil, fmt.Errorf("%s needs one key, a string", t)
		case option == "key":
			s.key = len(s.columns)
		case option == "seen" && (field.Type.Kind() != reflect.Int64 || s.seen >= 0):
			return nil, fmt.Errorf("%s can have one position, an int64", t)
		case option == "seen":
			s.seen = len(s.columns)
		}
		s.columns = append(s.columns, c)
	}
	if s.key < 0 {
		return nil, fmt.Errorf("%s has no field tagged as the key", t)
	}
	return s, nil
}

// columnOf chooses how a type is stored: what is not listed is jsonb.
func columnOf(t reflect.Type) column {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return plain("timestamptz", func(v reflect.Value) time.Time { return v.Interface().(time.Time) }, sameTime)
	case t == reflect.TypeFor[*time.Time]():
		return plain("timestamptz", func(v reflect.Value) *time.Time { return v.Interface().(*time.Time) }, sameTimePointer)
	case t.Kind() == reflect.String:
		return plain("text", reflect.Value.String, same[string])
	case t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.String:
		return plain("text", stringPointer, samePointer[string])
	case t.Kind() == reflect.Bool:
		return plain("boolean", reflect.Value.Bool, same[bool])
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64:
		return plain("bigint", reflect.Value.Int, same[int64])
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		return plain("double precision", reflect.Value.Float, same[float64])
	}
	return column{sqlType: "jsonb", json: true, array: jsonArray, equal: func(a, b reflect.Value) bool {
		return reflect.DeepEqual(a.Interface(), b.Interface())
	}}
}

func plain[T any](sqlType string, get func(reflect.Value) T, equal func(a, b T) bool) column {
	return column{
		sqlType: sqlType,
		array: func(n int, at func(int) reflect.Value) (any, error) {
			values := make([]T, n)
			for i := range values {
				values[i] = get(at(i))
			}
			return values, nil
		},
		equal: func(a, b reflect.Value) bool { return equal(get(a), get(b)) },
	}
}

func jsonArray(n int, at func(int) reflect.Value) (any, error) {
	values := make([][]byte, n)
	for i := range values {
		v := at(i)
		if v.Kind() == reflect.Slice && v.IsNil() {
			values[i] = []byte("[]") // a list without elements is not a null, whoever made it
			continue
		}
		b, err := json.Marshal(v.Interface())
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", v.Type(), err)
		}
		values[i] = b
	}
	return values, nil
}

func stringPointer(v reflect.Value) *string {
	if v.IsNil() {
		return nil
	}
	s := v.Elem().String()
	return &s
}

func same[T comparable](a, b T) bool { return a == b }
func sameTime(a, b time.Time) bool   { return a.Equal(b) }
func samePointer[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func sameTimePointer(a, b *time.Time) bool {
	return a == b || a != nil && b != nil && a.Equal(*b)
}

func (s *shape[R]) keyOf(row *R) string {
	return reflect.ValueOf(row).Elem().FieldByIndex(s.columns[s.key].field).String()
}

// seenAt is the position of the last event that the row has seen.
func (s *shape[R]) seenAt(row *R) int64 {
	return reflect.ValueOf(row).Elem().FieldByIndex(s.columns[s.seen].field).Int()
}

// equal compares plain columns first: a row's version or position usually tells at once.
func (s *shape[R]) equal(a, b *R) bool {
	va, vb := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for _, json := range []bool{false, true} {
		for i := len(s.columns) - 1; i >= 0; i-- {
			c := &s.columns[i]
			if c.json == json && !c.equal(va.FieldByIndex(c.field), vb.FieldByIndex(c.field)) {
				return false
			}
		}
	}
	return true
}

// arrays turns rows into one array per column, in the order of the columns.
func (s *shape[R]) arrays(rows []*R) ([]any, error) {
	values := make([]reflect.Value, len(rows))
	for i, row := range rows {
		values[i] = reflect.ValueOf(row).Elem()
	}
	out := make([]any, len(s.columns))
	for i := range s.columns {
		c := &s.columns[i]
		array, err := c.array(len(values), func(j int) reflect.Value { return values[j].FieldByIndex(c.field) })
		if err != nil {
			return nil, err
		}
		out[i] = array
	}
	return out, nil
}

// scan reads a row of the load statement, whose columns are in the order of the shape's.
func (s *shape[R]) scan(rows pgx.CollectableRow) (*R, error) {
	row := new(R)
	v := reflect.ValueOf(row).Elem()
	targets := make([]any, len(s.columns))
	for i := range s.columns {
		targets[i] = v.FieldByIndex(s.columns[i].field).Addr().Interface()
	}
	if err := rows.Scan(targets...); err != nil {
		return nil, err
	}
	return row, nil
}

// statements returns the SQL for a table. It is made once per table.
func (s *shape[R]) statements(table string) statements {
	if made, ok := s.cached.Load(table); ok {
		return made.(statements)
	}
	names, places, sets := make([]string, len(s.columns)), make([]string, len(s.columns)), []string{}
	for i, c := range s.columns {
		names[i] = pgx.Identifier{c.name}.Sanitize()
		places[i] = fmt.Sprintf("$%d::%s[]", i+1, c.sqlType)
		if i != s.key {
			sets = append(sets, names[i]+" = excluded."+names[i])
		}
	}
	seen := names[s.key]
	if s.seen >= 0 {
		seen = names[s.seen]
	}
	made := foldStatements(pgx.Identifier{table}.Sanitize(), names[s.key], seen, names, places, sets)
	s.cached.Store(table, made)
	return made
}
