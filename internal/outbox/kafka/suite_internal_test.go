package kafka

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/headrace/headrace/internal/kafkatest"
)

// The topics have one partition each, since the suite knows nothing of keys.
func TestAGroupPassesWatermillsSuite(t *testing.T) {
	t.Parallel()
	s := kafkatest.Start(t)
	features := tests.Features{ConsumerGroups: true, GuaranteedOrder: true, Persistent: true, ForceShort: true}
	connect := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		t.Helper()
		cfg := Config{Group: group, Partitions: 1}
		return of(t, s, cfg), of(t, s, cfg) // the suite closes some publishers and goes on with their subscribers
	}
	tests.TestPubSub(t, features, func(t *testing.T) (message.Publisher, message.Subscriber) {
		t.Helper()
		return connect(t, t.Name())
	}, connect)
}

func TestSubscriptionsWithoutAGroupPassWatermillsSuite(t *testing.T) {
	t.Parallel()
	s := kafkatest.Start(t)
	features := tests.Features{
		GuaranteedOrder: true, GuaranteedOrderWithSingleSubscriber: true, Persistent: true,
		NewSubscriberReceivesOldMessages: true, ForceShort: true,
	}
	tests.TestPubSub(t, features, func(t *testing.T) (message.Publisher, message.Subscriber) {
		t.Helper()
		cfg := Config{Partitions: 1}
		return of(t, s, cfg), of(t, s, cfg)
	}, nil)
}
