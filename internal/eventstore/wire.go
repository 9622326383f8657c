package eventstore

import (
	"encoding/binary"
	"errors"
	"math"
)

// The appender writes its parameters in Postgres's binary format by itself: at tens of thousands of events a second
// the general encoder's reflection and allocations are the largest cost on this side.
const (
	oidBytea  = 17
	oidInt8   = 20
	oidInt2   = 21
	oidInt4   = 23
	oidText   = 25
	oidFloat8 = 701
	oidUUID   = 2950
	oidJSONB  = 3802
)

// jsonbFormat is the version byte in front of binary jsonb.
const jsonbFormat = 1

// array is a one-dimensional array parameter, built element by element. Its buffer is reused.
type array struct {
	buf   []byte
	count int32
}

const arrayHeader = 20

func (a *array) reset(oid uint32) {
	a.count = 0
	a.buf = append(a.buf[:0], make([]byte, arrayHeader)...)
	binary.BigEndian.PutUint32(a.buf[0:], 1) // dimensions
	binary.BigEndian.PutUint32(a.buf[8:], oid)
	binary.BigEndian.PutUint32(a.buf[16:], 1) // lower bound
}

// value is the parameter. It is valid until the next reset.
func (a *array) value() []byte {
	binary.BigEndian.PutUint32(a.buf[12:], uint32(a.count))
	return a.buf
}

func (a *array) text(s string) {
	a.count++
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(s)))
	a.buf = append(a.buf, s...)
}

func (a *array) bytes(b []byte) {
	a.count++
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(b)))
	a.buf = append(a.buf, b...)
}

func (a *array) jsonb(data []byte) {
	a.count++
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(data)+1))
	a.buf = append(a.buf, jsonbFormat)
	a.buf = append(a.buf, data...)
}

func (a *array) int2(n int16) {
	a.count++
	a.buf = binary.BigEndian.AppendUint32(a.buf, 2)
	a.buf = binary.BigEndian.AppendUint16(a.buf, uint16(n))
}

func (a *array) int4(n int) {
	a.count++
	a.buf = binary.BigEndian.AppendUint32(a.buf, 4)
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(int32(n)))
}

func (a *array) int8(n int64) {
	a.count++
	a.buf = binary.BigEndian.AppendUint32(a.buf, 8)
	a.buf = binary.BigEndian.AppendUint64(a.buf, uint64(n))
}

func (a *array) float8(f float64) {
	a.int8(int64(math.Float64bits(f)))
}

var errWire = errors.New("a result of an append has an unexpected form")

func readInt8(b []byte) (int64, error) {
	if len(b) != 8 {
		return 0, errWire
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

func readInt4(b []byte) (int32, error) {
	if len(b) != 4 {
		return 0, errWire
	}
	return int32(binary.BigEndian.Uint32(b)), nil
}

func readUUID(b []byte) (id [16]byte, err error) {
	if len(b) != 16 {
		return id, errWire
	}
	return [16]byte(b), nil
}
