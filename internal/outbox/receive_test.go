package outbox_test

import (
	"context"
	"errors"
	"fmt"
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

// hasty are short pauses, for tests in which much fails.
func hasty() outbox.InboxConfig {
	return outbox.InboxConfig{
		// A message must not be worked on again because the machine stood still.
		HandleTimeout: 4 * never, Grace: 20 * time.Second,
		RetryMin: time.Millisecond, RetryMax: 4 * time.Millisecond, PollMin: time.Millisecond, PollMax: 20 * time.Millisecond, Logger: quiet(),
	}
}

func (b *bundle) inbox(subscriber message.Subscriber, cfg outbox.InboxConfig, routes ...outbox.InboxRoute) *outbox.Inbox {
	b.t.Helper()
	var subscribed []string
	if subscriber != nil {
		subscribed = []string{"payments"}
	}
	in, err := outbox.NewInbox(b.pool, subscriber, subscribed, cfg, routes...)
	if err != nil {
		b.t.Fatal(err)
	}
	return in
}

// handled counts what a route was given, by id.
type handled struct {
	mu    sync.Mutex
	times map[string]int
	last  map[string]outbox.Incoming
}

func (h *handled) route(then func(m outbox.Incoming) error) outbox.InboxRoute {
	h.times, h.last = map[string]int{}, map[string]outbox.Incoming{}
	return outbox.InboxRoute{Topic: "payments", Handle: func(_ context.Context, m outbox.Incoming) error {
		h.mu.Lock()
		h.times[m.ID]++
		h.last[m.ID] = m
		h.mu.Unlock()
		if then == nil {
			return nil
		}
		return then(m)
	}}
}

func (h *handled) of(id string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.times[id]
}

func (b *bundle) received(id string) outbox.Received {
	b.t.Helper()
	r, err := outbox.ShowReceived(b.ctx, b.pool, "payments", id)
	if err != nil && !errors.Is(err, outbox.ErrUnknownMessage) {
		b.t.Fatal(err)
	}
	return r
}

func (b *bundle) becomes(id, state string) outbox.Received {
	b.t.Helper()
	until(b.ctx, b.t, id+" is "+state, func() bool { return b.received(id).State == state })
	return b.received(id)
}

func paid(id, body string) *message.Message { return message.NewMessage(id, []byte(body)) }

// A message comes several times, at two processes, in any order: each is worked on once.
func TestInboxHandlesAMessageOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var h handled
	route := h.route(nil)
	one, two := b.inbox(nil, hasty(), route), b.inbox(nil, hasty(), route)
	b.run(one.Run)
	b.run(two.Run)
	var all sync.WaitGroup
	for _, in := range []*outbox.Inbox{one, two, one} {
		all.Go(func() {
			for i := range 50 {
				if err := in.Accept(b.ctx, "payments", paid(fmt.Sprint("p-", (i*7)%50), `{"n": 1}`)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	until(b.ctx, t, "all are handled", func() bool { return b.count(`select count(*) from inbox where handled_at is not null`) == 50 })
	if err := one.Accept(b.ctx, "payments", paid("p-1", `{"n": 1}`)); err != nil { // long after it was handled
		t.Fatal(err)
	}
	if known, err := outbox.SendReceived(b.ctx, b.pool, "payments", "p-2", []byte(`{"n": 1}`), 0); err != nil || !known {
		t.Fatalf("known: %v, %v", known, err)
	}
	for i := range 50 {
		if n := h.of(fmt.Sprint("p-", i)); n != 1 {
			t.Errorf("p-%d was worked on %d times", i, n)
		}
	}
	if n := b.count(`select count(*) from inbox where payload is not null or handled_at is null`); n != 0 {
		t.Errorf("%d are not done with", n)
	}
}

// The process dies between the effect and the note of it: the message is worked on again, under the same command id.
func TestInboxWorksAgainAfterACrash(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var h handled
	effect := func(m outbox.Incoming) error {
		_, err := b.store.Append(b.ctx, eventstore.Request{
			Stream: "sum-1", Expected: eventstore.Any, Events: []eventstore.Payload{added{N: 1}},
			CommandID: eventstore.CommandID{Actor: "inbox:payments", ID: m.ID},
		})
		return err
	}
	route := h.route(effect)
	if _, err := outbox.SendReceived(b.ctx, b.pool, "payments", "p-1", []byte(`1`), 0); err != nil {
		t.Fatal(err)
	}
	// What a process leaves behind that died: a claim, and the effect.
	b.exec(`update inbox set attempts = 1, available_at = clock_timestamp() + interval '5 milliseconds'`)
	if err := effect(outbox.Incoming{ID: "p-1"}); err != nil {
		t.Fatal(err)
	}
	b.run(b.inbox(nil, hasty(), route).Run)
	b.becomes("p-1", outbox.ReceivedHandled)
	if h.of("p-1") != 1 || b.count(`select count(*) from events`) != 1 {
		t.Fatalf("worked on %d times again, with %d events", h.of("p-1"), b.count(`select count(*) from events`))
	}
}

func TestInboxRetriesBuriesAndDigsUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var h handled
	var mu sync.Mutex
	mended := false
	route := h.route(func(m outbox.Incoming) error {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case mended || (m.ID == "later" && m.Attempt == 3):
			return nil
		case m.ID == "never":
			return outbox.Dead(errors.New("the amount is wrong"))
		case m.ID == "panics":
			panic("ouch")
		}
		return errors.New("not now")
	})
	cfg := hasty()
	cfg.Attempts = 4
	in := b.inbox(nil, cfg, route)
	b.run(in.Run)
	for _, id := range []string{"later", "never", "panics", "fails"} {
		if err := in.Accept(b.ctx, "payments", paid(id, `"`+id+`"`)); err != nil {
			t.Fatal(err)
		}
	}
	b.becomes("later", outbox.ReceivedHandled)
	if r := b.becomes("never", outbox.ReceivedDead); r.Attempts != 1 || r.LastError != "the amount is wrong" || string(r.Payload) != `"never"` {
		t.Errorf("got %+v", r)
	}
	if r := b.becomes("panics", outbox.ReceivedDead); r.Attempts != 4 || !strings.Contains(r.LastError, "ouch") {
		t.Errorf("got %+v", r)
	}
	b.becomes("fails", outbox.ReceivedDead)
	if h.of("later") != 3 || h.of("fails") != 4 {
		t.Errorf("later: %d times, fails: %d times", h.of("later"), h.of("fails"))
	}
	dead, err := outbox.ListReceived(b.ctx, b.pool, outbox.ReceivedDead, "", 10)
	if err != nil || len(dead) != 3 {
		t.Fatalf("got %+v, %v", dead, err)
	}

	mu.Lock()
	mended = true
	mu.Unlock()
	if n, err := outbox.RetryReceived(b.ctx, b.pool, "payments", "fails", "later", "unknown"); n != 1 || err != nil {
		t.Fatalf("retrying %d, %v", n, err)
	}
	b.becomes("fails", outbox.ReceivedHandled)
	if n, err := outbox.DiscardReceived(b.ctx, b.pool, "payments", "never", "later"); n != 1 || err != nil {
		t.Fatalf("discarding %d, %v", n, err)
	}
	// What was discarded stays known.
	if err := in.Accept(b.ctx, "payments", paid("never", `"never"`)); err != nil {
		t.Fatal(err)
	}
	if r := b.received("never"); r.State != outbox.ReceivedHandled || r.LastError != "discarded: the amount is wrong" || r.Payload != nil {
		t.Errorf("got %+v", r)
	}
	if n, err := outbox.RetryReceived(b.ctx, b.pool, "payments", "never"); n != 0 || err != nil {
		t.Errorf("retrying %d of what was discarded, %v", n, err)
	}
}

// Whatever kills the process in the last attempt leaves no outcome: no further process is handed the message.
func TestInboxBuriesWhatEndsItsProcess(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var h handled
	cfg := hasty()
	cfg.Attempts = 3
	in := b.inbox(nil, cfg, h.route(nil))
	if err := in.Accept(b.ctx, "payments", paid("killer", `1`)); err != nil {
		t.Fatal(err)
	}
	b.exec(`update inbox set attempts = 3, last_error = 'not now'`)
	b.run(in.Run)
	r := b.becomes("killer", outbox.ReceivedDead)
	if h.of("killer") != 0 || r.Attempts != 3 || !strings.Contains(r.LastError, "not now") || !strings.Contains(r.LastError, "outcome") {
		t.Fatalf("handed out %d times, and then %+v", h.of("killer"), r)
	}
}

// What cannot be understood is kept as it came, with the reason, and holds nothing up.
func TestInboxKeepsPoisonAsItCame(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var h handled
	cfg := hasty()
	cfg.MaxPayloadBytes, cfg.MaxHeaders = 100, 3
	in := b.inbox(nil, cfg, h.route(nil))
	b.run(in.Run)
	with := func(m *message.Message, pairs ...string) *message.Message {
		for i := 0; i < len(pairs); i += 2 {
			m.Metadata.Set(pairs[i], pairs[i+1])
		}
		return m
	}
	for _, c := range []struct {
		msg    *message.Message
		reason string
	}{
		{paid("", "a"), "no id"},
		{with(paid("payments:1", "b"), outbox.MetaPlace, "payments:1"), "no id"},
		{paid(strings.Repeat("x", 181), "c"), "181 bytes"},
		{paid("nul\x00", "d\x00\xff"), "no text"},
		{paid("large", strings.Repeat("e", 101)), "101 bytes"},
		{with(paid("headers", "f"), "1", "", "2", "", "3", "", "4", ""), "4 headers"},
		{with(paid("odd", "g"), "name", "\x00"), "no text"},
		{paid("event", `{"specversion": "1.0", "id": "1"}`), "source"},
		{with(paid("broken", `{`), "content-type", "application/cloudevents+json"), "cannot be read"},
		{with(paid("old", `h`), "ce_specversion", "0.3", "ce_id", "1", "ce_source", "s"), "0.3"},
	} {
		before := b.count(`select count(*) from inbox`)
		for range 2 { // the same again is known
			if err := in.Accept(b.ctx, "payments", c.msg); err != nil {
				t.Fatalf("%s: %v", c.reason, err)
			}
		}
		var payload []byte
		var reason string
		err := b.pool.QueryRow(b.ctx, `select payload, last_error from inbox where dead_at is not null order by received_at desc limit 1`).Scan(&payload, &reason)
		if err != nil || !strings.Contains(reason, c.reason) || !strings.HasPrefix(string(c.msg.Payload), string(payload)) || len(payload) == 0 {
			t.Errorf("%s: got %q, %q, %v", c.reason, reason, payload, err)
		}
		if n := b.count(`select count(*) from inbox`) - before; n != 1 {
			t.Errorf("%s: kept %d times", c.reason, n)
		}
	}
	// A header of others may have any name.
	if err := in.Accept(b.ctx, "payments", with(paid("from Turin", "j"), outbox.MetaPlace, "Turin")); err != nil {
		t.Fatal(err)
	}
	b.becomes("from Turin", outbox.ReceivedHandled)
	// A header is bounded with the others together, and by nothing else.
	long := with(paid("long header", "i"), "name", strings.Repeat("v", 5000))
	if err := in.Accept(b.ctx, "payments", long); err != nil {
		t.Fatal(err)
	}
	until(b.ctx, t, "the long header is no flaw", func() bool { return b.received("long header").State == outbox.ReceivedHandled })
	// Of the one that was cut off no part is worked on; the others may be, at an operator's word.
	for _, r := range mustList(b, outbox.ReceivedDead) {
		n, err := outbox.RetryReceived(b.ctx, b.pool, "payments", r.ID)
		if want := int64(1); err != nil || (n != want) != (r.Size == 101) {
			t.Errorf("%s: retrying %d, %v", r.LastError, n, err)
		}
	}
	// The same id with another content is not taken for a repeat, nor worked on.
	for _, body := range []string{`{"amount": 1}`, `{"amount": 2}`, `{"amount": 2}`} {
		if err := in.Accept(b.ctx, "payments", paid("p-1", body)); err != nil {
			t.Fatal(err)
		}
	}
	b.becomes("p-1", outbox.ReceivedHandled)
	var other []outbox.Received
	for _, r := range mustList(b, outbox.ReceivedDead) {
		if strings.HasPrefix(r.ID, "p-1~") {
			other = append(other, r)
		}
	}
	if len(other) != 1 || !strings.Contains(other[0].LastError, "another content") {
		t.Fatalf("got %+v", other)
	}
}

func mustList(b *bundle, state string) []outbox.Received {
	b.t.Helper()
	all, err := outbox.ListReceived(b.ctx, b.pool, state, "payments", 100)
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

func TestInboxReadsCloudEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var h handled
	in := b.inbox(nil, hasty(), h.route(nil))
	b.run(in.Run)
	binary := paid("", `{"amount": 1}`)
	for name, value := range map[string]string{"specversion": "1.0", "id": "1", "source": "/provider", "type": "captured"} {
		binary.Metadata.Set("ce_"+name, value)
	}
	for id, msg := range map[string]*message.Message{
		"/provider#1": binary,
		"/provider#2": paid("transport", `{"specversion":"1.0","id":"2","source":"/provider","type":"captured","data":{"amount": 1}}`),
		"/provider#3": paid("transport", `{"specversion":"1.0","id":"3","source":"/provider","type":"captured","data_base64":"eyJhbW91bnQiOiAxfQ=="}`),
		"plain":       paid("plain", `{"amount": 1}`),
	} {
		if err := in.Accept(b.ctx, "payments", msg); err != nil {
			t.Fatal(err)
		}
		b.becomes(id, outbox.ReceivedHandled)
		h.mu.Lock()
		m := h.last[id]
		h.mu.Unlock()
		if string(m.Data) != `{"amount": 1}` || (m.Type == "captured") == (id == "plain") || m.ReceivedAt.IsZero() {
			t.Errorf("%s: got %+v", id, m)
		}
	}
}

func TestInboxForgetsWhatIsOldEnough(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`insert into inbox (topic, id, digest, size, received_at, available_at, handled_at)
		select 'payments', 'old-' || n, '', 0, now(), now(), now() - interval '2 seconds' from generate_series(1, 2500) n`)
	b.exec(`insert into inbox (topic, id, digest, size, received_at, available_at, payload, dead_at)
		values ('payments', 'dead', '', 0, now(), now(), '', now() - interval '2 seconds')`)
	cfg := hasty()
	cfg.Keep = time.Second
	var h handled
	b.run(b.inbox(nil, cfg, h.route(nil)).Run)
	until(b.ctx, t, "the old ones are forgotten", func() bool { return b.count(`select count(*) from inbox`) == 1 })
	b.becomes("dead", outbox.ReceivedDead)
}

// The broker restarts and Postgres is away: nothing is lost, and what is not written down stays at the broker.
func TestInboxLosesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	nats := natstest.Start(t)
	broker := func(group string) *natsjs.Broker {
		return b.nats(natsjs.Config{URL: nats.URL, Group: group, Foreign: true, InFlight: 16, AckWait: time.Second})
	}
	provider := broker("")
	publish := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			m := paid(fmt.Sprint("p-", i), `{}`)
			until(b.ctx, t, "the provider to publish", func() bool { return provider.Publish("payments", m) == nil })
		}
	}
	var h handled
	route := h.route(nil)
	for range 2 {
		b.run(b.inbox(broker("shop"), hasty(), route).Run)
	}
	publish(0, 20)
	nats.Stop()
	nats.Start()
	publish(20, 40)
	handled := func(n int) func() bool {
		return func() bool { return b.count(`select count(*) from inbox where handled_at is not null`) == n }
	}
	// Postgres does not take what comes. What was in hand then would be worked on again.
	until(b.ctx, t, "what came before is handled", handled(40))
	b.exec(`alter table inbox rename to away`)
	publish(40, 60)
	b.exec(`alter table away rename to inbox`)
	publish(50, 70)
	until(b.ctx, t, "all are handled", handled(70))
	for i := range 70 {
		if n := h.of(fmt.Sprint("p-", i)); n != 1 {
			t.Errorf("p-%d was worked on %d times", i, n)
		}
	}
}
