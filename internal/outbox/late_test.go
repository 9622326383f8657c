package outbox_test

import (
	"context"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headrace/headrace/internal/outbox"
)

// lateSubscriber has the subscription begin only when it may.
type lateSubscriber struct {
	message.Subscriber
	may <-chan struct{}
}

func (s lateSubscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	select {
	case <-s.may:
		return s.Subscriber.Subscribe(ctx, topic)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A consumer that has looked at the log is told of nothing until the broker knows of it. It looks once more then.
func TestWhatIsPublishedBeforeTheSubscriptionIsFound(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.add(20, 2)
	local := outbox.NewLocal(outbox.LocalConfig{Keep: -1}) // as brokers are that begin with what is new
	defer local.Close()
	may := make(chan struct{})
	sub, at := sums("sums_v1")
	late := lateSubscriber{local, may}
	b.run(outbox.NewConsumer(b.pool, b.store, late, sub, outbox.ConsumerConfig{Probe: never, Logger: quiet()}).Run)
	at.reach(b.ctx, t, 20)
	b.run(outbox.NewRelay(b.store, local, outbox.RelayConfig{Pool: b.pool, Name: "relay", Logger: quiet()}).Run)
	b.add(20, 2)
	until(b.ctx, t, "all is published", func() bool {
		return b.count(`select coalesce(max(position), 0) from checkpoints where name = 'relay'`) == 40
	})
	close(may)
	at.reach(b.ctx, t, 40)
	b.checkSums("sums_v1", 40)
}
