package direct

import (
	"io"
	"strconv"

	"github.com/99designs/gqlgen/graphql"
)

// Encoder gathers the text of one object or list.
type Encoder struct {
	Bytes  []byte
	failed bool
}

// Encode runs an encoder. It returns nil when that failed or panicked: the executor, who then goes the same way again,
// knows how to say so at the right place.
func (p *Plan) Encode(write func(*Encoder)) (out graphql.Marshaler) {
	defer func() {
		if recover() != nil {
			out = nil
		}
	}()
	last := int(p.written.Load())
	e := Encoder{Bytes: make([]byte, 0, last+last/8+64)}
	write(&e)
	if e.failed {
		return nil
	}
	p.written.Store(int64(len(e.Bytes)))
	return &text{e.Bytes}
}

// text is finished JSON.
type text struct{ json []byte }

func (t *text) MarshalGQL(w io.Writer) { _, _ = w.Write(t.json) }

// Fail gives up: the executor writes the whole object or list instead.
func (e *Encoder) Fail() { e.failed = true }

// Text writes what is JSON already.
func (e *Encoder) Text(json string) { e.Bytes = append(e.Bytes, json...) }

// Comma separates the element of a list from the one before it.
func (e *Encoder) Comma(index int) {
	if index > 0 {
		e.Bytes = append(e.Bytes, ',')
	}
}

// Null writes null.
func (e *Encoder) Null() { e.Text("null") }

// Boolean writes true or false.
func (e *Encoder) Boolean(b bool) { e.Bytes = strconv.AppendBool(e.Bytes, b) }

// Int writes an integer.
func (e *Encoder) Int(n int) { e.Int64(int64(n)) }

// Int64 writes an integer.
func (e *Encoder) Int64(n int64) { e.Bytes = strconv.AppendInt(e.Bytes, n, 10) }

// String writes text in quotes, escaped as the executor does it.
func (e *Encoder) String(s string) { e.Bytes = AppendString(e.Bytes, s) }

// Marshaler writes a value of a type or scalar that has no method here.
func (e *Encoder) Marshaler(m graphql.Marshaler, nonNull bool) {
	if nonNull && m == graphql.Null {
		e.Fail()
		return
	}
	m.MarshalGQL(e)
}

// Write lets marshalers write here.
func (e *Encoder) Write(text []byte) (int, error) {
	e.Bytes = append(e.Bytes, text...)
	return len(text), nil
}

const hex = "0123456789ABCDEF"

// AppendString appends text in quotes, escaped as graphql.MarshalString does it: quotes, backslashes and control
// characters, and nothing else.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	return append(append(b, s[start:]...), '"')
}
