package outbox_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headrace/headrace/internal/outbox"
)

// recorder is a shared broker that remembers which positions it was told of, and by whom.
type recorder struct {
	mu       sync.Mutex
	told     []int64
	by       []string
	messages int
	fail     int // this many more calls fail
	changed  chan struct{}
}

type recorderOf struct {
	*recorder
	name string
}

func (recorderOf) Close() error { return nil }

func (r recorderOf) Publish(_ string, messages ...*message.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail > 0 {
		r.fail--
		return errors.New("the broker is away")
	}
	r.messages += len(messages)
	for _, msg := range messages {
		run, err := outbox.DecodeRun(msg.Payload)
		if err != nil {
			return err
		}
		for _, e := range run.Events {
			r.told, r.by = append(r.told, e.Position), append(r.by, r.name)
		}
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
	return nil
}

func (r *recorder) reach(t *testing.T, b *bundle, position int64) {
	t.Helper()
	for {
		r.mu.Lock()
		done := len(r.told) > 0 && r.told[len(r.told)-1] >= position
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-r.changed:
		case <-b.ctx.Done():
			t.Fatalf("the broker was not told of %d", position)
		}
	}
}

// check wants every position once, in order.
func (r *recorder) check(t *testing.T, from int64) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, position := range r.told {
		if position != from+int64(i) {
			t.Fatalf("message %d is of position %d, want %d", i, position, from+int64(i))
		}
	}
}

func TestRelayStartsAtTheHeadAndRetriesForEver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(10, 2)
	r := &recorder{changed: make(chan struct{}, 1), fail: 20}
	relay := outbox.NewRelay(b.store, recorderOf{r, ""}, outbox.RelayConfig{RetryMax: time.Millisecond, Logger: quiet()})
	b.run(relay.Run)
	// Where the head is when the relay starts cannot be seen from outside, so what it tells first is taken as it is.
	for r.count() == 0 {
		b.add(1, 1)
	}
	b.add(500, 7)
	r.reach(t, b, b.head())
	if r.told[0] <= 10 {
		t.Fatalf("it told of position %d, which was there before", r.told[0])
	}
	r.check(t, r.told[0])
}

// A relay without a cursor goes on where it stopped when the database was away for a moment, and tells nothing twice.
func TestRelayWithoutACursorGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := &recorder{changed: make(chan struct{}, 1)}
	relay := outbox.NewRelay(b.store, recorderOf{r, ""}, outbox.RelayConfig{RetryMax: time.Millisecond, Logger: quiet()})
	b.run(relay.Run)
	until(b.ctx, t, "the relay has begun", func() bool { return relay.Status().Owner })
	for range 5 {
		b.add(20, 2)
		b.exec(`alter table events rename to events_away`)
		until(b.ctx, t, "the relay fails", func() bool { return relay.Status().LastError != "" })
		b.exec(`insert into events_away (position, version, recorded_at, id, stream, type, schema_version, data, metadata)
			select max(position) + 1, 1, clock_timestamp(), gen_random_uuid(), 'sum-' || max(position), 'test.noise', 1, '{}', '{}' from events_away`)
		b.exec(`alter table events_away rename to events`)
		r.reach(t, b, b.head())
		until(b.ctx, t, "the relay is well", func() bool { return relay.Status().LastError == "" })
	}
	r.check(t, 1)
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.told)
}

func TestTwoLeasedRelaysTellEachEventOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(700, 7)
	r := &recorder{changed: make(chan struct{}, 1)}
	cfg := outbox.RelayConfig{Pool: b.pool, TTL: time.Minute, Logger: quiet()} // one that stands still does not lose its lease
	stop := map[string]func(){}
	for _, name := range []string{"a", "b"} {
		stop[name] = b.run(outbox.NewRelay(b.store, recorderOf{r, name}, cfg).Run)
	}
	r.reach(t, b, 700)
	r.mu.Lock()
	if r.messages > 2 {
		t.Errorf("700 events that were there took %d messages", r.messages)
	}
	r.mu.Unlock()
	b.add(70, 7)
	r.reach(t, b, 770)
	r.check(t, 1)
	owner := r.by[0]
	for i, by := range r.by {
		if by != owner {
			t.Fatalf("position %d was told by %s, the lease is with %s", r.told[i], by, owner)
		}
	}

	stop[owner]()
	cfg.TTL = 5 * time.Second // a third one, which looks more often than the second
	b.run(outbox.NewRelay(b.store, recorderOf{r, "c"}, cfg).Run)
	b.add(70, 7)
	r.reach(t, b, 840)
	r.check(t, 1)
}

func TestLeasedRelayRepeatsWhatItDidNotRecord(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(20, 2)
	r := &recorder{changed: make(chan struct{}, 1)}
	cfg := outbox.RelayConfig{Pool: b.pool, Logger: quiet()}
	stop := b.run(outbox.NewRelay(b.store, recorderOf{r, "a"}, cfg).Run)
	r.reach(t, b, 20)
	stop()
	// As if the process had died between publishing and recording.
	b.exec(`update checkpoints c set position = 10, event_id = e.id from events e where c.name = 'relay' and e.position = 10`)
	again := &recorder{changed: make(chan struct{}, 1)}
	b.run(outbox.NewRelay(b.store, recorderOf{again, "b"}, cfg).Run)
	again.reach(t, b, 20)
	again.check(t, 11)
}

func TestLeasedRelayHaltsWhenItsCheckpointIsOfAnotherHistory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(20, 2)
	r := &recorder{changed: make(chan struct{}, 1)}
	cfg := outbox.RelayConfig{Pool: b.pool, Logger: quiet(), TTL: 10 * time.Second} // in a shorter one it may have to repeat itself
	stop := b.run(outbox.NewRelay(b.store, recorderOf{r, "a"}, cfg).Run)
	r.reach(t, b, 20)
	stop() // records first what it has published
	b.exec(`update checkpoints set event_id = gen_random_uuid() where name = 'relay'`)
	b.add(20, 2)
	relay := outbox.NewRelay(b.store, recorderOf{r, "a"}, cfg)
	b.run(relay.Run)
	until(b.ctx, t, "the relay halts", func() bool {
		var halted bool
		_ = b.pool.QueryRow(b.ctx, `select halted_at is not null from checkpoints where name = 'relay'`).Scan(&halted)
		return halted && !relay.Status().Owner
	})
	r.check(t, 1)
	if r.count() != 20 {
		t.Fatalf("%d events were told", r.count())
	}
	// An operator says where it goes on, and nothing is started anew.
	if err := outbox.Rewind(b.ctx, b.pool, "relay", 18); err != nil {
		t.Fatal(err)
	}
	r.reach(t, b, 40)
	until(b.ctx, t, "the relay says that it goes on", func() bool {
		s := relay.Status()
		return s.Owner && s.HaltedAt.IsZero() && s.Position == 40
	})
	if r.count() != 42 { // 19 and 20 once more
		t.Fatalf("%d events were told", r.count())
	}
}

// stuck is a publisher that stands still in its first call, as the whole process may.
type stuck struct {
	recorderOf
	once          sync.Once
	asleep, awake chan struct{}
}

func (s *stuck) Publish(topic string, messages ...*message.Message) error {
	s.once.Do(func() {
		close(s.asleep)
		<-s.awake
	})
	return s.recorderOf.Publish(topic, messages...)
}

// A relay that sleeps longer than its lease tells the broker again what was told, and never moves the cursor back.
func TestOversleptRelayMovesNoCursor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(30, 3)
	zombies := &recorder{changed: make(chan struct{}, 1)}
	sleeper := &stuck{recorderOf: recorderOf{zombies, "zombie"}, asleep: make(chan struct{}), awake: make(chan struct{})}
	stop := b.run(outbox.NewRelay(b.store, sleeper, outbox.RelayConfig{Pool: b.pool, TTL: time.Hour, Logger: quiet()}).Run)
	<-sleeper.asleep
	b.exec(`update checkpoints set lease_until = clock_timestamp() - interval '1 second' where name = 'relay'`)
	r := &recorder{changed: make(chan struct{}, 1)}
	b.run(outbox.NewRelay(b.store, recorderOf{r, "successor"}, outbox.RelayConfig{Pool: b.pool, TTL: time.Hour, Logger: quiet()}).Run)
	b.add(30, 3)
	r.reach(t, b, 60)
	cursor := func() (position, epoch int64) {
		if err := b.pool.QueryRow(b.ctx, `select position, lease_epoch from checkpoints where name = 'relay'`).Scan(&position, &epoch); err != nil {
			t.Fatal(err)
		}
		return position, epoch
	}
	until(b.ctx, t, "the successor has recorded", func() bool { position, _ := cursor(); return position == 60 })
	_, epoch := cursor()
	close(sleeper.awake)
	zombies.reach(t, b, 30) // it says once more what was said, which receivers drop by position
	stop()
	if position, now := cursor(); position != 60 || now != epoch {
		t.Fatalf("the cursor is at %d in epoch %d, want 60 in %d", position, now, epoch)
	}
	r.check(t, 1)
}

func TestRelayAnnouncesWhatIsTooLargeForTheBroker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	local := outbox.NewLocal(outbox.LocalConfig{})
	defer local.Close()
	small := &limited{to: local}
	b.run(outbox.NewRelay(b.store, small, outbox.RelayConfig{Pool: b.pool, Logger: quiet()}).Run)
	sub, at := sums("sums_v1")
	// No probe would come in time: it is the announcement that has the log read.
	b.run(outbox.NewConsumer(b.pool, b.store, local, sub, outbox.ConsumerConfig{Probe: time.Hour, Logger: quiet()}).Run)
	for range 20 {
		b.add(31, 31)
		at.reach(b.ctx, t, b.head())
	}
	b.checkSums("sums_v1", b.head())
}

// limited is a broker that takes no payloads.
type limited struct{ to *outbox.Local }

func (*limited) Close() error { return nil }

func (l *limited) Publish(topic string, messages ...*message.Message) error {
	for _, msg := range messages {
		if len(msg.Payload) > 0 {
			return outbox.ErrTooLarge
		}
	}
	return l.to.Publish(topic, messages...)
}
