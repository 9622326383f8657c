package eventstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// plan is how a batch travels: the statements, the parameters, and how the result is read.
type plan struct {
	lock, statement string
	values          [][]byte
	read            func(pipeline *pgconn.Pipeline, log identity, batch []*pending) ([]answer, error)
}

// encoder turns batches into parameters. Its buffers are reused from batch to batch.
type encoder struct {
	arrays  [30]array
	values  [30][]byte
	scalar  [24]byte
	answers []answer
}

// encode picks the cheapest statement that can carry the batch.
func (e *encoder) encode(batch []*pending) plan {
	e.answers = e.answers[:0]
	for _, p := range batch {
		if p.needsFull() {
			return e.encodeFull(batch)
		}
	}
	if len(batch) == 1 && len(batch[0].events) == 1 {
		return e.encodeOne(batch[0])
	}
	for _, p := range batch {
		if p.parts[0].expected < NoStream {
			return e.encodeJudged(batch)
		}
	}
	return e.encodeMany(batch)
}

func (p *prepared) needsFull() bool {
	return len(p.events) == 0 || len(p.parts) > 1 || p.request.CommandID.ID != "" ||
		len(p.claims)+len(p.releases)+len(p.messages) > 0
}

func (e *encoder) encodeOne(p *pending) plan {
	event := &p.events[0]
	numbers := e.scalar[:0]
	numbers = binary.BigEndian.AppendUint16(numbers, uint16(event.schemaVersion))
	numbers = binary.BigEndian.AppendUint64(numbers, uint64(p.parts[0].expected))
	data := append(append(e.arrays[0].buf[:0], jsonbFormat), event.data...)
	metadata := append(append(e.arrays[1].buf[:0], jsonbFormat), p.metadata...)
	e.arrays[0].buf, e.arrays[1].buf = data, metadata
	values := append(e.values[:0], event.id[:], []byte(p.parts[0].stream), []byte(event.typ), numbers[:2],
		data, metadata, numbers[2:10])
	return plan{nameLock, nameOne, values, e.readInserted}
}

func (e *encoder) encodeMany(batch []*pending) plan {
	a := e.reset(oidUUID, oidText, oidText, oidInt2, oidJSONB, oidJSONB, oidInt8, oidText, oidInt8)
	for _, p := range batch {
		stream, expected := p.parts[0].stream, int64(p.parts[0].expected)
		for i := range p.events {
			encodeEvent(a, &p.events[i], stream, p.metadata)
			a[6].int8(expected + int64(i) + 1)
		}
		a[7].text(stream)
		a[8].int8(expected)
	}
	return plan{nameLock, nameMany, e.finish(len(a)), e.readAll}
}

func (e *encoder) encodeJudged(batch []*pending) plan {
	a := e.reset(oidUUID, oidText, oidText, oidInt2, oidJSONB, oidJSONB, oidInt8, oidInt4)
	for _, p := range batch {
		for i := range p.events {
			encodeEvent(a, &p.events[i], p.parts[0].stream, p.metadata)
			a[6].int8(int64(p.parts[0].expected))
			a[7].int4(i + 1)
		}
	}
	return plan{nameLock, nameJudged, e.finish(len(a)), e.readInserted}
}

func encodeEvent(a []array, event *encoded, stream string, metadata []byte) {
	a[0].bytes(event.id[:])
	a[1].text(stream)
	a[2].text(event.typ)
	a[3].int2(event.schemaVersion)
	a[4].jsonb(event.data)
	a[5].jsonb(metadata)
}

func (e *encoder) reset(oids ...uint32) []array {
	for i, oid := range oids {
		e.arrays[i].reset(oid)
	}
	return e.arrays[:len(oids)]
}

func (e *encoder) finish(n int) [][]byte {
	values := e.values[:0]
	for i := range n {
		values = append(values, e.arrays[i].value())
	}
	return values
}

// encodeFull numbers requests and parts from 1, as the statement's ordinalities do.
func (e *encoder) encodeFull(batch []*pending) plan {
	a := e.reset(oidText, oidText, oidBytea, oidText, oidInt4, oidInt4, oidInt4, oidUUID, // requests
		oidInt4, oidText, oidInt8, // parts
		oidInt4, oidText, oidInt4, oidText, // claims, releases
		oidUUID, oidInt4, oidText, oidInt2, oidJSONB, oidJSONB, oidInt4, oidInt4, // events
		oidInt4, oidUUID, oidFloat8, oidText, oidText, oidJSONB, oidJSONB) // messages
	partNumber := 0
	for i, p := range batch {
		number := i + 1
		encodeRequest(a, p, partNumber+1)
		partNumber = encodeParts(a, p, number, partNumber)
		for _, key := range p.claims {
			a[11].int4(number)
			a[12].text(key)
		}
		for _, key := range p.releases {
			a[13].int4(number)
			a[14].text(key)
		}
		for j := range p.messages {
			m := &p.messages[j]
			a[23].int4(number)
			a[24].bytes(m.ID[:])
			a[25].float8(m.Delay.Seconds())
			a[26].text(m.Topic)
			a[27].text(m.Key)
			a[28].jsonb(m.Payload)
			a[29].jsonb(m.headers)
		}
	}
	return plan{nameLockFull, nameFull, e.finish(len(a)), e.readVerdicts}
}

func encodeRequest(a []array, p *pending, ownPart int) {
	var last [16]byte
	if n := len(p.events); n > 0 {
		last = p.events[n-1].id
	}
	id := &p.request.CommandID
	a[0].text(id.Actor)
	a[1].text(id.ID)
	a[2].bytes(id.Hash[:])
	a[3].text(p.parts[0].stream)
	a[4].int4(ownPart)
	a[5].int4(p.parts[0].events)
	a[6].int4(len(p.events))
	a[7].bytes(last[:])
}

func encodeParts(a []array, p *pending, request, partNumber int) int {
	next := 0
	for j := range p.parts {
		part := &p.parts[j]
		partNumber++
		a[8].int4(request)
		a[9].text(part.stream)
		a[10].int8(int64(part.expected))
		for step := range part.events {
			event := &p.events[next]
			next++
			a[15].bytes(event.id[:])
			a[16].int4(partNumber)
			a[17].text(event.typ)
			a[18].int2(event.schemaVersion)
			a[19].jsonb(event.data)
			a[20].jsonb(p.metadata)
			a[21].int4(step + 1)
			a[22].int4(next)
		}
	}
	return partNumber
}

// errRefused says that some request of a batch was not at its expected version, and nothing was written.
var errRefused = errors.New("a stream of the batch is not at its expected version")

// readAll reads the positions of a batch that was accepted as a whole.
func (e *encoder) readAll(pipeline *pgconn.Pipeline, log identity, batch []*pending) ([]answer, error) {
	first, rows := int64(0), 0
	err := eachRow(pipeline, func(row [][]byte) (err error) {
		if rows++; rows == 1 {
			first, err = readInt8(row[0])
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if rows == 0 {
		return nil, errRefused
	}
	position := first - 1
	for _, p := range batch {
		n := len(p.events)
		position += int64(n)
		e.answers = append(e.answers, answer{receipt: Receipt{
			Stream: p.parts[0].stream, Version: int64(p.parts[0].expected) + int64(n),
			Token: Token{LogID: log.id, Epoch: log.epoch, Position: position, EventID: p.events[n-1].id},
		}})
	}
	if position != first-1+int64(rows) {
		return nil, errWire
	}
	return e.answers, nil
}

// readInserted matches the inserted rows, which come in order, with the requests: those of a request are all there or
// none. A version that is not known yet is -1; resolve looks it up.
func (e *encoder) readInserted(pipeline *pgconn.Pipeline, log identity, batch []*pending) ([]answer, error) {
	next := 0 // the request that the next row can belong to
	seen := 0 // how many of its rows came
	refuse := func() {
		p := batch[next]
		e.answers = append(e.answers, answer{err: &ConflictError{
			Stream: p.parts[0].stream, Expected: p.parts[0].expected, Actual: -1,
		}})
		next++
	}
	err := eachRow(pipeline, func(row [][]byte) error {
		position, version, id, err := readRow(row)
		if err != nil {
			return err
		}
		for seen == 0 && next < len(batch) && batch[next].events[0].id != id {
			refuse()
		}
		if next == len(batch) {
			return errWire
		}
		p := batch[next]
		if p.events[seen].id != id {
			return errWire
		}
		if seen++; seen < len(p.events) {
			return nil
		}
		e.answers = append(e.answers, answer{receipt: Receipt{
			Stream: p.parts[0].stream, Version: version,
			Token: Token{LogID: log.id, Epoch: log.epoch, Position: position, EventID: id},
		}})
		next, seen = next+1, 0
		return nil
	})
	if err == nil && seen != 0 {
		err = errWire
	}
	for err == nil && next < len(batch) {
		refuse()
	}
	return e.answers, err
}

func readRow(row [][]byte) (position, version int64, id [16]byte, err error) {
	if position, err = readInt8(row[0]); err != nil {
		return
	}
	if version, err = readInt8(row[1]); err != nil {
		return
	}
	id, err = readUUID(row[2])
	return
}

// The verdicts of sqlAppendFull.
const (
	verdictAccepted = iota
	verdictKnown
	verdictConflict
	verdictTaken
	verdictUnheld
)

func (e *encoder) readVerdicts(pipeline *pgconn.Pipeline, log identity, batch []*pending) ([]answer, error) {
	err := eachRow(pipeline, func(row [][]byte) error {
		if len(e.answers) == len(batch) {
			return errWire
		}
		got, err := readVerdict(row, log, batch[len(e.answers)])
		e.answers = append(e.answers, got)
		return err
	})
	if err == nil && len(e.answers) != len(batch) {
		err = errWire
	}
	return e.answers, err
}

func readVerdict(row [][]byte, log identity, p *pending) (answer, error) {
	var numbers [5]int64
	for i, column := range [...]int{0, 1, 2, 3, 6} {
		n, err := readInt8(row[column])
		if err != nil {
			return answer{}, err
		}
		numbers[i] = n
	}
	last, err := readUUID(row[4])
	if err != nil {
		return answer{}, err
	}
	verdict, version, position, found := numbers[1], numbers[2], numbers[3], numbers[4]
	id := p.request.CommandID.ID
	switch verdict {
	case verdictAccepted:
		return answer{receipt: Receipt{
			CommandID: id, Stream: p.parts[0].stream, Version: version,
			Token: Token{LogID: log.id, Epoch: log.epoch, Position: position, EventID: last},
		}}, nil
	case verdictKnown:
		return answer{receipt: Receipt{CommandID: id, Duplicate: true}}, nil
	case verdictConflict:
		stream := string(row[5])
		return answer{err: &ConflictError{Stream: stream, Expected: p.expectedOf(stream), Actual: found}}, nil
	case verdictTaken, verdictUnheld:
		return answer{err: &ClaimTakenError{Key: string(row[7]), Owner: string(row[8])}}, nil
	}
	return answer{}, fmt.Errorf("%w: verdict %d", errWire, verdict)
}

func (p *prepared) expectedOf(stream string) ExpectedVersion {
	for i := range p.parts {
		if p.parts[i].stream == stream {
			return p.parts[i].expected
		}
	}
	return Any
}

// milliseconds is a duration as Postgres's settings take it.
func milliseconds(d time.Duration) string { return fmt.Sprintf("%dms", max(1, d.Milliseconds())) }
