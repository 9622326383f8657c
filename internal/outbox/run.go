package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
)

// Limits of a run.
const (
	// MaxRunBytes is where a run ends, unless a single event is larger.
	MaxRunBytes = 256 << 10
	// MaxRunEvents is how many events a run holds at most.
	MaxRunEvents = 500
)

// Metadata of a message that carries a run. The payload says the same; a message where they differ is refused.
const (
	MetaFirst = "first"  // position of the first event
	MetaLast  = "last"   // position of the last event
	MetaLogID = "log_id" // the log that the positions belong to
	MetaEpoch = "epoch"  // its epoch when the run was read
)

// Run is a number of consecutive events of one log: positions First to First+len(Events)-1, without a hole.
type Run struct {
	LogID  uuid.UUID
	Epoch  int32
	Prev   uuid.UUID // the event at First-1, zero when First is 1: a run can only continue the history that it names
	First  int64
	Events []eventstore.Event
}

// Last is the position of the run's last event.
func (r Run) Last() int64 { return r.First + int64(len(r.Events)) - 1 }

// The form of a payload: a fixed head, the table of event types, the events, a checksum. Counts and lengths are
// uvarints, times are microseconds since the event before.
const (
	runFormat     = 1
	runHeadBytes  = 1 + 16 + 4 + 16 + 8 + 4 + 8 // format, log id, epoch, prev, first, count, base time
	runSumBytes   = 4
	minEventBytes = 1 + 1 + 16 + 1 + 1 + 1 + 1 + 1 // version, time, id, stream, type, schema version, data, metadata
)

var errRun = errors.New("this is not a run of events")

// EncodeRun writes the payload of a message. The events must be consecutive and at least one.
func EncodeRun(r Run) []byte {
	size := runHeadBytes + runSumBytes + 64
	for i := range r.Events {
		size += eventSize(&r.Events[i])
	}
	b := make([]byte, 0, size)
	b = append(b, runFormat)
	b = append(b, r.LogID[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(r.Epoch))
	b = append(b, r.Prev[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.First))
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Events)))
	at := r.Events[0].RecordedAt.UnixMicro()
	b = binary.BigEndian.AppendUint64(b, uint64(at))

	var types []string
	numbers := make(map[string]uint64, 8)
	for i := range r.Events {
		if _, known := numbers[r.Events[i].Type]; !known {
			numbers[r.Events[i].Type] = uint64(len(types))
			types = append(types, r.Events[i].Type)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(types)))
	for _, t := range types {
		b = appendBytes(b, t)
	}
	for i := range r.Events {
		e := &r.Events[i]
		b = binary.AppendUvarint(b, uint64(e.Version))
		b = binary.AppendVarint(b, e.RecordedAt.UnixMicro()-at)
		at = e.RecordedAt.UnixMicro()
		b = append(b, e.ID[:]...)
		b = appendBytes(b, e.Stream)
		b = binary.AppendUvarint(b, numbers[e.Type])
		b = binary.AppendUvarint(b, uint64(e.SchemaVersion))
		b = appendBytes(b, e.Data)
		b = appendBytes(b, e.Metadata)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// eventSize is a little more than what the event takes in a payload.
func eventSize(e *eventstore.Event) int {
	return len(e.Stream) + len(e.Data) + len(e.Metadata) + 48
}

func appendBytes[T ~string | ~[]byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// DecodeRun reads a payload. The events share its memory, so it must not be changed afterwards. It refuses whatever
// EncodeRun did not write, and what was damaged since.
func DecodeRun(payload []byte) (Run, error) {
	run, _, err := decodeRun(payload, nil)
	return run, err
}

// decodeRun leaves out the events whose type is not wanted; nil wants all. The run's last position is then that of
// the head, and not what Last says; the id of the event there is returned too.
func decodeRun(payload []byte, want func(eventType string) bool) (run Run, last uuid.UUID, err error) {
	h, err := readRunHead(payload)
	if err != nil {
		return run, last, err
	}
	body := payload[:len(payload)-runSumBytes]
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(payload[len(body):]) {
		return run, last, fmt.Errorf("%w: the checksum is wrong", errRun)
	}
	d := decoder{rest: body[runHeadBytes:]}
	types, wanted := d.types(want)
	events := make([]eventstore.Event, 0, h.count)
	at := h.at
	for i := range h.count {
		var e eventstore.Event
		e.Position = h.first + int64(i)
		e.Version = int64(d.uvarint(1<<63 - 1))
		at += d.varint()
		copy(e.ID[:], d.take(16))
		stream := d.bytes()
		number := d.uvarint(uint64(len(types)))
		e.SchemaVersion = int(d.uvarint(1 << 15))
		e.Data = d.bytes()
		e.Metadata = d.bytes()
		if d.bad || number >= uint64(len(types)) {
			return run, last, fmt.Errorf("%w: event %d is malformed", errRun, i)
		}
		last = e.ID
		if !wanted[number] {
			continue
		}
		e.Type, e.Stream, e.RecordedAt = types[number], string(stream), time.UnixMicro(at)
		events = append(events, e)
	}
	if d.bad || len(d.rest) != 0 {
		return run, last, fmt.Errorf("%w: it does not end where it should", errRun)
	}
	return Run{LogID: h.logID, Epoch: h.epoch, Prev: h.prev, First: h.first, Events: events}, last, nil
}

// runHead is the fixed beginning of a payload: enough to decide whether the rest is of use.
type runHead struct {
	logID uuid.UUID
	epoch int32
	prev  uuid.UUID
	first int64
	count int
	at    int64
}

func (h runHead) last() int64 { return h.first + int64(h.count) - 1 }

func readRunHead(payload []byte) (runHead, error) {
	if len(payload) < runHeadBytes+runSumBytes+1 || payload[0] != runFormat {
		return runHead{}, errRun
	}
	h := runHead{
		logID: uuid.UUID(payload[1:17]),
		epoch: int32(binary.BigEndian.Uint32(payload[17:])),
		prev:  uuid.UUID(payload[21:37]),
		first: int64(binary.BigEndian.Uint64(payload[37:])),
		count: int(binary.BigEndian.Uint32(payload[45:])),
		at:    int64(binary.BigEndian.Uint64(payload[49:])),
	}
	room := (len(payload) - runHeadBytes - runSumBytes) / minEventBytes
	if h.first < 1 || h.first > 1<<62 || h.count < 1 || h.count > min(room, MaxRunEvents) || h.epoch < 0 {
		return runHead{}, fmt.Errorf("%w: its head makes no sense", errRun)
	}
	return h, nil
}

// decoder reads from the front of rest. After a failure it reads zeros and bad is set.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) types(want func(string) bool) (types []string, wanted []bool) {
	count := d.uvarint(uint64(len(d.rest)))
	for range count {
		types = append(types, string(d.bytes()))
		if d.bad {
			return nil, nil
		}
		wanted = append(wanted, want == nil || want(types[len(types)-1]))
	}
	return types, wanted
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || v > limit {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) take(n int) []byte {
	if n > len(d.rest) {
		d.bad, d.rest = true, nil
		return nil
	}
	taken := d.rest[:n:n]
	d.rest = d.rest[n:]
	return taken
}

func (d *decoder) bytes() []byte {
	return d.take(int(d.uvarint(uint64(len(d.rest)))))
}

// runMessage makes the message of a run. Its UUID is the id of the run's last event, by which a broker may dedupe.
func runMessage(r Run) *message.Message {
	msg := message.NewMessage(r.Events[len(r.Events)-1].ID.String(), EncodeRun(r))
	msg.Metadata.Set(MetaFirst, strconv.FormatInt(r.First, 10))
	msg.Metadata.Set(MetaLast, strconv.FormatInt(r.Last(), 10))
	msg.Metadata.Set(MetaLogID, r.LogID.String())
	msg.Metadata.Set(MetaEpoch, strconv.Itoa(int(r.Epoch)))
	return msg
}

// messageHead reads the head of a message's run, and refuses a message whose metadata says something else.
func messageHead(msg *message.Message) (runHead, error) {
	h, err := readRunHead(msg.Payload)
	if err != nil {
		return runHead{}, err
	}
	if msg.Metadata.Get(MetaFirst) != strconv.FormatInt(h.first, 10) ||
		msg.Metadata.Get(MetaLast) != strconv.FormatInt(h.last(), 10) ||
		msg.Metadata.Get(MetaLogID) != h.logID.String() ||
		msg.Metadata.Get(MetaEpoch) != strconv.Itoa(int(h.epoch)) {
		return runHead{}, fmt.Errorf("%w: metadata and payload differ", errRun)
	}
	return h, nil
}

// cutRun takes the events of the first run off a page of consecutive events.
func cutRun(events []eventstore.Event) (run, rest []eventstore.Event) {
	size := 0
	for i := range events {
		size += eventSize(&events[i])
		if i == MaxRunEvents || (i > 0 && size > MaxRunBytes-runHeadBytes-runSumBytes-64) {
			return events[:i], events[i:]
		}
	}
	return events, nil
}
