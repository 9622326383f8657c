package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// receiver is a publisher that counts what it was given by message id, and refuses what it is told to refuse.
type receiver struct {
	mu       sync.Mutex
	got      map[string][]*message.Message
	refuse   func(msg *message.Message) error
	received chan struct{}
}

func newReceiver(refuse func(*message.Message) error) *receiver {
	return &receiver{got: map[string][]*message.Message{}, refuse: refuse, received: make(chan struct{}, 1)}
}

func (*receiver) Close() error { return nil }

func (r *receiver) Publish(topic string, messages ...*message.Message) error {
	for _, msg := range messages {
		r.mu.Lock()
		r.got[msg.UUID] = append(r.got[msg.UUID], msg)
		r.mu.Unlock()
		select {
		case r.received <- struct{}{}:
		default:
		}
		if r.refuse != nil {
			if err := r.refuse(msg); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *receiver) counts() (messages, deliveries int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, all := range r.got {
		deliveries += len(all)
	}
	return len(r.got), deliveries
}

func (b *bundle) send(n int, change func(m *eventstore.Message)) (ids []uuid.UUID) {
	b.t.Helper()
	r := eventstore.Request{Stream: eventstore.StreamID("sum"), Events: []eventstore.Payload{added{N: 1}}}
	for range n {
		m := eventstore.Message{
			ID: uuid.New(), Topic: "letters", Key: "k", Payload: json.RawMessage(`{"a": 1}`),
			Headers: map[string]string{"lang": "en"},
		}
		if change != nil {
			change(&m)
		}
		r.Messages, ids = append(r.Messages, m), append(ids, m.ID)
	}
	if _, err := b.store.Append(b.ctx, r); err != nil {
		b.t.Fatal(err)
	}
	return ids
}

func (b *bundle) count(sql string, args ...any) (n int) {
	b.t.Helper()
	if err := b.pool.QueryRow(b.ctx, sql, args...).Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *bundle) delivered() {
	b.t.Helper()
	until(b.ctx, b.t, "the outbox is empty", func() bool {
		left := -1 // a test may have killed this very connection
		_ = b.pool.QueryRow(b.ctx, `select count(*) from outbox`).Scan(&left)
		return left == 0
	})
}

func TestDispatcherDeliversOnceWhenNothingFails(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := newReceiver(nil)
	cfg := unhurried()
	cfg.Workers = 5
	for range 2 { // two processes
		b.run(outbox.NewDispatcher(b.pool, b.store, r, cfg).Run)
	}
	for range 10 {
		b.send(20, nil)
	}
	b.delivered()
	if messages, deliveries := r.counts(); messages != 200 || deliveries != 200 {
		t.Fatalf("%d messages in %d deliveries", messages, deliveries)
	}
	for id, all := range r.got {
		m := all[0].Metadata
		var payload struct{ A int }
		if err := json.Unmarshal(all[0].Payload, &payload); err != nil || payload.A != 1 {
			t.Fatalf("message %s says %s", id, all[0].Payload)
		}
		if m["lang"] != "en" || m[outbox.MetaKey] != "k" || m[outbox.MetaAttempt] != "1" || m[outbox.MetaCreatedAt] == "" {
			t.Fatalf("message %s has metadata %v", id, m)
		}
	}
}

func TestDispatcherRetriesWithBackOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := newReceiver(func(msg *message.Message) error {
		if msg.Metadata[outbox.MetaAttempt] == "4" {
			return nil
		}
		return errors.New("not now")
	})
	b.run(outbox.NewDispatcher(b.pool, b.store, r, unhurried()).Run)
	b.send(10, nil)
	b.delivered()
	if messages, deliveries := r.counts(); messages != 10 || deliveries != 40 {
		t.Fatalf("%d messages in %d deliveries", messages, deliveries)
	}
}

func TestDispatcherBuriesAndDigsUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var refusing sync.Mutex
	refuse := true
	r := newReceiver(func(msg *message.Message) error {
		refusing.Lock()
		defer refusing.Unlock()
		if refuse {
			if msg.Metadata[outbox.MetaAttempt] == "2" {
				panic("as bad as an error")
			}
			return errors.New("no such\x00 addr\xffess") // which Postgres would not take
		}
		return nil
	})
	cfg := unhurried()
	cfg.Attempts, cfg.RetryMin, cfg.RetryMax = 3, time.Microsecond, time.Microsecond
	b.run(outbox.NewDispatcher(b.pool, b.store, r, cfg).Run)
	ids := b.send(3, nil)
	until(b.ctx, t, "all are dead", func() bool { return b.count(`select count(*) from outbox where dead_at is not null`) == 3 })
	if _, deliveries := r.counts(); deliveries != 9 {
		t.Fatalf("3 messages of 3 attempts were delivered %d times", deliveries)
	}
	dead, err := outbox.ListDead(b.ctx, b.pool, 10)
	if err != nil || len(dead) != 3 {
		t.Fatalf("listed %v, %v", dead, err)
	}
	if d := dead[0]; d.Topic != "letters" || d.Key != "k" || d.Attempts != 3 || d.LastError != "no such address" || d.Headers["lang"] != "en" {
		t.Fatalf("a dead letter is listed as %+v", d)
	}
	if n, err := outbox.DiscardDead(b.ctx, b.pool, ids[0]); n != 1 || err != nil {
		t.Fatalf("discarded %d, %v", n, err)
	}
	refusing.Lock()
	refuse = false
	refusing.Unlock()
	if n, err := outbox.RetryDead(b.ctx, b.pool, ids...); n != 2 || err != nil {
		t.Fatalf("retried %d, %v", n, err)
	}
	b.delivered()
	if _, deliveries := r.counts(); deliveries != 11 {
		t.Fatalf("delivered %d times", deliveries)
	}
}

func TestDispatcherWaitsUntilDue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := newReceiver(nil)
	b.run(outbox.NewDispatcher(b.pool, b.store, r, unhurried()).Run)
	b.send(1, func(m *eventstore.Message) { m.Delay = time.Hour })
	soon := b.send(1, nil)
	<-r.received
	until(b.ctx, t, "the delayed one is left", func() bool { return b.count(`select count(*) from outbox`) == 1 })
	if messages, _ := r.counts(); messages != 1 || len(r.got[soon[0].String()]) != 1 {
		t.Fatal("the delayed message came at once")
	}
	b.exec(`update outbox set available_at = available_at - interval '2 hours'`)
	b.delivered()
}

func TestDispatcherDeliversWhatADeadProcessHadClaimed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.send(5, nil)
	// The first process dies in Publish: what it claimed stays hidden, and nothing is recorded.
	b.exec(`update outbox set attempts = 1, available_at = clock_timestamp() + interval '1 hour'`)
	r := newReceiver(nil)
	b.run(outbox.NewDispatcher(b.pool, b.store, r, unhurried()).Run)
	b.send(1, nil)
	<-r.received
	if messages, _ := r.counts(); messages != 1 {
		t.Fatal("claimed messages were delivered before their claim ran out")
	}
	until(b.ctx, t, "the delivery is recorded", func() bool { return b.count(`select count(*) from outbox`) == 5 })
	b.exec(`update outbox set available_at = clock_timestamp()`)
	b.delivered()
	if messages, deliveries := r.counts(); messages != 6 || deliveries != 6 {
		t.Fatalf("%d messages in %d deliveries", messages, deliveries)
	}
}

// Whatever kills the process in the last attempt leaves no outcome: no further process is handed the message.
func TestDispatcherBuriesWhatEndsItsProcess(t *testing.T) {
	t.Parallel()
	b := setup(t)
	killer := b.send(1, nil)[0]
	b.exec(`update outbox set attempts = 3, last_error = 'not now'`)
	r := newReceiver(nil)
	b.run(outbox.NewDispatcher(b.pool, b.store, r, impatient(3)).Run)
	b.send(1, nil)
	until(b.ctx, t, "the other one is delivered", func() bool {
		return b.count(`select count(*) from outbox`) == 1 && b.count(`select count(*) from outbox where dead_at is not null`) == 1
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.got[killer.String()]) != 0 {
		t.Fatal("it was handed out again")
	}
	dead, err := outbox.ListDead(b.ctx, b.pool, 10)
	if err != nil || len(dead) != 1 || dead[0].ID != killer || dead[0].Attempts != 3 || !strings.Contains(dead[0].LastError, "not now") ||
		!strings.Contains(dead[0].LastError, "outcome") {
		t.Fatalf("dead letters %+v, %v", dead, err)
	}
}

func TestDispatcherSurvivesKilledConnections(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := newReceiver(nil)
	cfg := outbox.DispatcherConfig{
		// Of this a quarter must be enough to record an outcome, also over a new connection, which takes long on a busy machine.
		Workers: 3, PublishTimeout: 400 * time.Millisecond, Attempts: 10_000, PollMin: time.Millisecond, Logger: quiet(),
	}
	b.run(outbox.NewDispatcher(b.pool, b.store, r, cfg).Run)
	sent := map[string]bool{}
	for range 20 {
		for _, id := range b.send(5, nil) {
			sent[id.String()] = true
		}
		// The dispatcher's connections, wherever they are: claiming, recording, or idle since. Not the appender's.
		_, _ = b.pool.Exec(b.ctx, `select pg_terminate_backend(pid) from pg_stat_activity
			where datname = current_database() and pid <> pg_backend_pid() and query like '%outbox%' and query not like '%receipts%'`)
	}
	b.delivered()
	for id := range sent {
		if len(r.got[id]) == 0 {
			t.Fatalf("message %s was lost", id)
		}
	}
}

func TestDispatcherThroughLocalWaitsForTheAcknowledgement(t *testing.T) {
	t.Parallel()
	b := setup(t)
	local := outbox.NewLocal(outbox.LocalConfig{AwaitAck: true})
	defer local.Close()
	letters, err := local.Subscribe(b.ctx, "letters")
	if err != nil {
		t.Fatal(err)
	}
	stop := b.run(outbox.NewDispatcher(b.pool, b.store, local, unhurried()).Run)
	b.send(1, nil)
	first := receive(b.ctx, t, letters)
	first.Nack()
	again := receive(b.ctx, t, letters)
	if again.UUID != first.UUID {
		t.Fatal("another message came")
	}
	if b.count(`select count(*) from outbox`) != 1 {
		t.Fatal("the message was deleted before it was acknowledged")
	}
	again.Ack()
	b.delivered()
	stop()
}

// deliver shows how a program receives messages of the outbox.
func deliver(ctx context.Context, local *outbox.Local, topic string, handle func(*message.Message)) error {
	messages, err := local.Subscribe(ctx, topic)
	if err != nil {
		return err
	}
	go func() {
		for msg := range messages {
			handle(msg)
			msg.Ack()
		}
	}()
	return nil
}

func ExampleLocal() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	local := outbox.NewLocal(outbox.LocalConfig{AwaitAck: true})
	err := deliver(ctx, local, "user.welcome", func(msg *message.Message) {
		fmt.Printf("welcome, %s\n", msg.Payload)
	})
	if err != nil {
		panic(err)
	}
	// Publish returns when the subscriber has acknowledged.
	if err := local.Publish("user.welcome", message.NewMessage(uuid.NewString(), []byte("Ada"))); err != nil {
		panic(err)
	}
	if err := local.Close(); err != nil {
		panic(err)
	}
	fmt.Println(local.Publish("user.welcome", message.NewMessage("", nil)))
	// Output:
	// welcome, Ada
	// publish to user.welcome: the local broker is closed
}

// A broker that keeps messages ends the dispatcher's part; what its receiver sends back is delivered again, also when it
// comes back before the dispatcher has recorded that it was delivered.
func TestReturnedMessagesComeAgainAndDieAfterTheLastAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var d *outbox.Dispatcher
	failing := errors.New("the mail server is down")
	r := newReceiver(func(msg *message.Message) error {
		if msg.Metadata.Get("lang") == "en" {
			return d.Return(b.ctx, "letters", msg, failing)
		}
		if msg.Metadata.Get(outbox.MetaAttempt) == "1" {
			return d.Return(b.ctx, "letters", msg, failing)
		}
		return nil
	})
	d = outbox.NewDispatcher(b.pool, b.store, r, impatient(3))
	b.run(d.Run)
	dying := b.send(1, nil)[0]
	mended := b.send(1, func(m *eventstore.Message) { m.Headers = nil })[0]
	until(b.ctx, t, "one is dead and the other delivered", func() bool {
		var left, dead int
		_ = b.pool.QueryRow(b.ctx, `select count(*), count(dead_at) from outbox`).Scan(&left, &dead)
		return left == 1 && dead == 1
	})
	letters, err := outbox.ListDead(b.ctx, b.pool, 10)
	if err != nil || len(letters) != 1 || letters[0].ID != dying || letters[0].Attempts != 3 || letters[0].LastError != failing.Error() ||
		letters[0].Key != "k" || letters[0].Headers[outbox.MetaReturned] != "3" || letters[0].Headers["lang"] != "en" {
		t.Fatalf("dead letters %+v, %v", letters, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := r.got[mended.String()]; len(got) != 2 || got[1].Metadata.Get(outbox.MetaReturned) != "1" {
		t.Fatalf("the mended one came %d times", len(got))
	}
	if got := r.got[dying.String()]; len(got) != 3 {
		t.Fatalf("the dying one came %d times", len(got))
	}
}

func TestReturnRefusesWhatIsFromNoOutbox(t *testing.T) {
	t.Parallel()
	b := setup(t)
	d := outbox.NewDispatcher(b.pool, b.store, newReceiver(nil), outbox.DispatcherConfig{Logger: quiet()})
	own := message.NewMessage(uuid.NewString(), []byte(`{}`))
	own.Metadata = message.Metadata{outbox.MetaAttempt: "1", outbox.MetaCreatedAt: time.Now().Format(time.RFC3339Nano)}
	for name, change := range map[string]func(m *message.Message){
		"id": func(m *message.Message) { m.UUID = "7" }, "payload": func(m *message.Message) { m.Payload = []byte("x") },
		"attempt": func(m *message.Message) { m.Metadata[outbox.MetaAttempt] = "" },
		"time":    func(m *message.Message) { m.Metadata[outbox.MetaCreatedAt] = "today" },
	} {
		foreign := own.Copy()
		change(foreign)
		if err := d.Return(b.ctx, "letters", foreign, errors.New("no")); !errors.Is(err, outbox.ErrForeign) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if err := d.Return(b.ctx, "letters", own, errors.New("no")); err != nil {
		t.Fatal(err)
	}
}
