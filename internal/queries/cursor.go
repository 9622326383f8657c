package queries

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"time"
	"unicode/utf8"
)

// cursorVersion is the first byte of every cursor, so that another encoding can come later.
const cursorVersion = 1

// encodeCursor packs the order's name and the row's key: version, name, then each value with its length, then a
// checksum. The checksum tells a damaged cursor from one that ends elsewhere; it keeps no secret.
func encodeCursor(order string, key []any) string {
	b := append([]byte{cursorVersion}, lengthPrefixed(nil, order)...)
	for _, v := range key {
		switch v := v.(type) {
		case int64:
			b = binary.AppendVarint(b, v)
		case time.Time:
			b = binary.AppendVarint(b, v.UnixMicro())
		case string:
			b = lengthPrefixed(b, v)
		default:
			panic(fmt.Sprintf("queries: a cursor cannot hold a %T", v))
		}
	}
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.RawURLEncoding.EncodeToString(b)
}

func lengthPrefixed(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decodeCursor unpacks a cursor of this order. The kinds of values are those of like.
func decodeCursor(text, order string, like []any) ([]any, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 5 || b[0] != cursorVersion {
		return nil, false
	}
	body, sum := b[:len(b)-4], b[len(b)-4:]
	if binary.BigEndian.Uint32(sum) != crc32.ChecksumIEEE(body) {
		return nil, false
	}
	r := bytes.NewReader(body[1:])
	if name, ok := readString(r); !ok || name != order {
		return nil, false
	}
	key := make([]any, len(like))
	for i, kind := range like {
		var ok bool
		switch kind.(type) {
		case string:
			key[i], ok = readString(r)
		case time.Time:
			var micros int64
			micros, err = binary.ReadVarint(r)
			key[i], ok = time.UnixMicro(micros).UTC(), err == nil && micros > -maxMicros && micros < maxMicros
		default:
			key[i], err = binary.ReadVarint(r)
			ok = err == nil
		}
		if !ok {
			return nil, false
		}
	}
	return key, r.Len() == 0
}

// maxMicros is some 8,000 years: times of a forged cursor beyond it would be refused by Postgres.
const maxMicros = 8_000 * 365 * 24 * int64(time.Hour/time.Microsecond)

func readString(r *bytes.Reader) (string, bool) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n > uint64(r.Len()) {
		return "", false
	}
	b := make([]byte, n)
	if _, err := r.Read(b); err != nil && n > 0 {
		return "", false
	}
	s := string(b)
	return s, storable(s)
}

// bound adds the conditions that the cursors stand for.
func (o Order[R]) bound(where *Where, args PageArgs) error {
	after, before := ">", "<"
	if o.Desc {
		after, before = "<", ">"
	}
	for _, c := range []struct {
		argument, comparison string
		cursor               *string
	}{{"after", after, args.After}, {"before", before, args.Before}} {
		if c.cursor == nil {
			continue
		}
		var zero R
		key, ok := decodeCursor(*c.cursor, o.Name, o.Key(zero))
		if !ok {
			return &ArgumentError{Argument: c.argument, Reason: "is not a cursor of this list and order"}
		}
		places := make([]string, len(key))
		for i, v := range key {
			where.args = append(where.args, v)
			places[i] = fmt.Sprintf("$%d", len(where.args))
		}
		where.conditions = append(where.conditions,
			fmt.Sprintf("(%s) %s (%s)", strings.Join(o.Columns, ", "), c.comparison, strings.Join(places, ", ")))
	}
	return nil
}

func (o Order[R]) sql(backward bool) string {
	direction := " asc"
	if o.Desc != backward {
		direction = " desc"
	}
	return " order by " + strings.Join(o.Columns, direction+", ") + direction
}

// storable tells whether Postgres can hold a text argument. What it cannot hold no row has, so that the answer is known
// without asking.
func storable(v any) bool {
	switch v := v.(type) {
	case string:
		return utf8.ValidString(v) && !strings.Contains(v, "\x00")
	case []string:
		for _, s := range v {
			if !storable(s) {
				return false
			}
		}
	}
	return true
}
