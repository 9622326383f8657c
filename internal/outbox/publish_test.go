package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/natstest"
	"github.com/headrace/headrace/internal/outbox"
	"github.com/headrace/headrace/internal/outbox/natsjs"
)

// publicTopic remembers what was published, and takes no message above most bytes.
type publicTopic struct {
	mu       sync.Mutex
	messages []*message.Message
	most     int
}

func (*publicTopic) Close() error { return nil }

func (p *publicTopic) Publish(_ string, messages ...*message.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, msg := range messages {
		if p.most > 0 && len(msg.Payload) > p.most {
			return fmt.Errorf("message %s: %w", msg.UUID, outbox.ErrTooLarge)
		}
	}
	p.messages = append(p.messages, messages...)
	return nil
}

// positions of what was published, in order.
func (p *publicTopic) positions(t testing.TB) []int64 {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []int64
	for _, msg := range p.messages {
		position, err := strconv.ParseInt(msg.Metadata.Get(outbox.MetaPosition), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, position)
	}
	return all
}

// numbers stores numbers in one stream, one event each.
func (b *bundle) numbers(stream string, numbers ...int64) {
	b.t.Helper()
	for _, n := range numbers {
		request := eventstore.Request{Stream: stream, Expected: eventstore.Any, Events: []eventstore.Payload{added{n}}}
		if _, err := b.store.Append(b.ctx, request); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bundle) publicRelay(to message.Publisher, c *outbox.Contract) func(context.Context) error {
	return outbox.NewRelay(b.store, to, outbox.RelayConfig{
		Contract: c, Topic: "public", Pool: b.pool, Name: "relay_public", RetryMax: 20 * time.Millisecond, PollMax: 50 * time.Millisecond, Logger: quiet(),
		TTL: never, // what is published in a lease that was lost is published again
	}).Run
}

// publicCursor is where the relay stands, and why it halted.
func (b *bundle) publicCursor() (position int64, reason string) {
	b.t.Helper()
	err := b.pool.QueryRow(b.ctx, `select coalesce(max(position), 0), coalesce(max(halt_reason), '') from checkpoints where name = 'relay_public'`).
		Scan(&position, &reason)
	if err != nil {
		b.t.Fatal(err)
	}
	return position, reason
}

// Readers through NATS see every public event once and in the order of its stream, whatever breaks in between; what is
// private leaves gaps and nothing else.
func TestPublicEventsReachOtherProgramsThroughNATS(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server := natstest.Start(t)
	proxy := natstest.NewProxy(t, server)
	open := func(url string) *natsjs.Broker { return b.nats(natsjs.Config{URL: url, PublishTimeout: time.Second}) }
	contract := contractOf(t, publicSums("test.sum.halved.v1"))
	b.add(700, 7)
	from, err := open(server.URL).Subscribe(b.ctx, "public")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := b.pool.Query(b.ctx, `select position from events where type = 'test.added' and (data->>'n')::bigint % 2 = 0 order by position`)
	if err != nil {
		t.Fatal(err)
	}
	var want []int64
	for rows.Next() {
		var position int64
		if err := rows.Scan(&position); err != nil {
			t.Fatal(err)
		}
		want = append(want, position)
	}
	if rows.Err() != nil || len(want) < 200 {
		t.Fatalf("%d events are public, %v", len(want), rows.Err())
	}
	stop := b.run(b.publicRelay(open(proxy.URL), contract))
	versions := make(map[string]int64)
	for i, position := range want {
		switch i {
		case 50:
			proxy.Cut()
			time.AfterFunc(100*time.Millisecond, proxy.Mend) // perhaps what comes next has not been published yet
		case 100:
			server.Stop()
			server.Start()
		}
		msg := receive(b.ctx, t, from)
		e := read(t, msg)
		version, err := strconv.ParseInt(e.Extensions()["streamversion"].(string), 10, 64)
		if err != nil || e.Extensions()["position"] != fmt.Sprint(position) || version <= versions[e.Subject()] {
			t.Fatalf("want position %d, got %s, %v", position, msg.Payload, err)
		}
		if msg.UUID != e.ID() || msg.Metadata[outbox.MetaKey] != e.Subject() || msg.Metadata[outbox.MetaContentType] != "application/cloudevents+json" {
			t.Fatalf("message %s with %v carries %s", msg.UUID, msg.Metadata, msg.Payload)
		}
		versions[e.Subject()] = version
		msg.Ack()
	}
	// As if the process had died before it recorded anything: what is said again, the server knows by its id.
	stop()
	b.exec(`update checkpoints c set position = 100, event_id = e.id from events e where c.name = 'relay_public' and e.position = 100`)
	b.run(b.publicRelay(open(server.URL), contract))
	b.numbers("sum-9", 1, 2)
	msg := receive(b.ctx, t, from)
	if e := read(t, msg); e.Subject() != "sum-9" || e.Extensions()["position"] != "702" {
		t.Fatalf("got %s", msg.Payload)
	}
	msg.Ack()
}

func TestAFailingMappingHaltsItsRelayAloneAndSkipsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.numbers("sum-1", 1, 3, 2, 5) // the third cannot be mapped
	topic, all := &publicTopic{}, &recorder{changed: make(chan struct{}, 1)}
	stop := b.run(b.publicRelay(topic, contractOf(t, panics("test.sum.halved.v1"))))
	b.run(outbox.NewRelay(b.store, recorderOf{all, ""}, outbox.RelayConfig{Pool: b.pool, Logger: quiet()}).Run)
	until(b.ctx, t, "the relay halts", func() bool { _, reason := b.publicCursor(); return reason != "" })
	position, reason := b.publicCursor()
	if position != 2 || !strings.Contains(reason, "test.added at position 3") || !strings.Contains(reason, "test.sum.halved.v1") {
		t.Fatalf("it halted at %d: %s", position, reason)
	}
	b.numbers("sum-1", 7)
	all.reach(t, b, 5) // the log goes on
	if got := fmt.Sprint(topic.positions(t)); got != "[1 2]" {
		t.Fatalf("published: %s", got)
	}
	// With the mapping mended and the process started anew, it goes on where it stood.
	stop()
	mended := outbox.Public("test.sum.halved.v1", func(_ outbox.Fact, p added) (publicSum, bool) { return publicSum{float64(p.N) / 2}, true })
	b.run(b.publicRelay(topic, contractOf(t, mended)))
	until(b.ctx, t, "the rest is published", func() bool { return len(topic.positions(t)) == 5 })
	if got := fmt.Sprint(topic.positions(t)); got != "[1 2 3 4 5]" {
		t.Fatalf("published: %s", got)
	}
}

func TestWhatIsTooLargeForTheBrokerHaltsTheRelayOfAContract(t *testing.T) {
	t.Parallel()
	b := setup(t)
	type long struct {
		Text string `json:"text"`
	}
	texts := outbox.Public("test.text.written.v1", func(_ outbox.Fact, p text) (long, bool) { return long(p), true })
	for _, size := range []int{10, 10, 2000, 10} {
		request := eventstore.Request{Stream: "text-1", Expected: eventstore.Any, Events: []eventstore.Payload{text{strings.Repeat("x", size)}}}
		if _, err := b.store.Append(b.ctx, request); err != nil {
			t.Fatal(err)
		}
	}
	topic := &publicTopic{most: 1500}
	b.run(b.publicRelay(topic, contractOf(t, texts)))
	until(b.ctx, t, "the relay halts", func() bool { _, reason := b.publicCursor(); return reason != "" })
	position, reason := b.publicCursor()
	if position != 2 || !strings.Contains(reason, outbox.ErrTooLarge.Error()) || fmt.Sprint(topic.positions(t)) != "[1 2]" {
		t.Fatalf("it halted at %d: %s, after publishing %v", position, reason, topic.positions(t))
	}
}

// The cursor follows what is private, so that a restart does not look at it again, and publishes none of it.
func TestPrivateEventsMoveTheCursorAndNothingElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.numbers("sum-1", 2)
	b.exec(`insert into events (position, version, recorded_at, id, stream, type, schema_version, data, metadata)
		select n, n - 1, now(), gen_random_uuid(), 'text-1', 'test.text', 1, '{"text": "PRIVATE"}', '{}' from generate_series(2, 30000) n`)
	topic := &publicTopic{}
	b.run(b.publicRelay(topic, contractOf(t, publicSums("test.sum.halved.v1"))))
	until(b.ctx, t, "the cursor is at the end", func() bool { position, _ := b.publicCursor(); return position == 30000 })
	if got := fmt.Sprint(topic.positions(t)); got != "[1]" {
		t.Fatalf("published: %s", got)
	}
	b.numbers("noise-1", 1) // mapped and private
	until(b.ctx, t, "the cursor follows", func() bool { position, _ := b.publicCursor(); return position == 30001 })
}

func TestAnEmptyContractPublishesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	topic, all := &publicTopic{}, &recorder{changed: make(chan struct{}, 1)}
	stop := b.run(b.publicRelay(topic, contractOf(t)))
	b.run(outbox.NewRelay(b.store, recorderOf{all, ""}, outbox.RelayConfig{Pool: b.pool, Logger: quiet()}).Run)
	until(b.ctx, t, "the relay has its lease", func() bool {
		return b.count(`select count(*) from checkpoints where name = 'relay_public' and lease_owner is not null`) == 1
	})
	b.numbers("sum-1", 2)
	all.reach(t, b, 1)
	stop()
	if got := topic.positions(t); len(got) != 0 {
		t.Fatalf("published: %v", got)
	}
}

func TestARelayOfAContractNeedsACursor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	err := outbox.NewRelay(b.store, &publicTopic{}, outbox.RelayConfig{Contract: contractOf(t)}).Run(b.ctx)
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

// What the documentation tells an operator to do for a reader that lost everything.
func TestAllIsPublishedAnewWhenTheCursorBeginsAnew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.numbers("sum-1", 2, 3, 4)
	topic, contract := &publicTopic{}, contractOf(t, publicSums("test.sum.halved.v1"))
	stop := b.run(b.publicRelay(topic, contract))
	until(b.ctx, t, "all is published", func() bool { return len(topic.positions(t)) == 2 })
	stop()
	b.exec(`update checkpoints set position = 0, event_id = null where name = 'relay_public'`)
	b.run(b.publicRelay(topic, contract))
	until(b.ctx, t, "all is published again", func() bool { return len(topic.positions(t)) == 4 })
	if first, again := topic.messages[0], topic.messages[2]; first.UUID != again.UUID || string(first.Payload) != string(again.Payload) {
		t.Fatalf("it comes again as another event: %s, %s", first.Payload, again.Payload)
	}
}
