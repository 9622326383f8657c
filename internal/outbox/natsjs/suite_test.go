package natsjs_test

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/headrace/headrace/internal/natstest"
	"github.com/headrace/headrace/internal/outbox/natsjs"
)

func TestAGroupPassesWatermillsSuite(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	features := tests.Features{ConsumerGroups: true, GuaranteedOrder: true, Persistent: true, ForceShort: true}
	connect := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		t.Helper()
		cfg := natsjs.Config{URL: server.URL, Group: group}
		return open(t, cfg), open(t, cfg) // the suite closes some publishers and goes on with their subscribers
	}
	tests.TestPubSub(t, features, func(t *testing.T) (message.Publisher, message.Subscriber) {
		t.Helper()
		return connect(t, "group")
	}, connect)
}

func TestSubscriptionsWithoutAGroupPassWatermillsSuite(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	features := tests.Features{
		GuaranteedOrder: true, GuaranteedOrderWithSingleSubscriber: true, Persistent: true,
		NewSubscriberReceivesOldMessages: true, ForceShort: true,
	}
	tests.TestPubSub(t, features, func(t *testing.T) (message.Publisher, message.Subscriber) {
		t.Helper()
		cfg := natsjs.Config{URL: server.URL}
		return open(t, cfg), open(t, cfg)
	}, nil)
}
