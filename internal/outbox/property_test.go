package outbox_test

import (
	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/outbox"
)

// TestConsumerDecidesByPosition delivers any sub-ranges of a log in any order, the last event's at last, with nothing
// but positions to tell what is missing: the probe is off.
func TestConsumerDecidesByPosition(t *testing.T) {
	t.Parallel()
	b := setupLong(t)
	b.add(119, 4)
	b.add(1, 1)
	page, err := b.store.ReadLog(b.ctx, eventstore.LogQuery{})
	if err != nil || len(page.Events) != 120 {
		t.Fatalf("read %d events, %v", len(page.Events), err)
	}
	head, err := b.store.Head(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		name := fmt.Sprintf("sums_v%d", runs)
		local := outbox.NewLocal(outbox.LocalConfig{})
		defer local.Close()
		cfg := outbox.ConsumerConfig{
			Probe: never, Logger: quiet(),
			Batch:       rapid.IntRange(1, 60).Draw(rt, "batch"),
			BufferBytes: rapid.SampledFrom([]int{1, 3000, 1 << 20}).Draw(rt, "inbox"),
		}
		sub, at := sums(name)
		stop := b.run(outbox.NewConsumer(b.pool, b.store, local, sub, cfg).Run)
		defer stop()
		deliver := func(first, last int64) {
			run := outbox.Run{LogID: head.LogID, Epoch: head.Epoch, First: first, Events: page.Events[first-1 : last]}
			if first > 1 {
				run.Prev = page.Events[first-2].ID
			}
			if err := local.Publish(outbox.LogTopic, runMessage(run)); err != nil {
				rt.Fatal(err)
			}
		}
		for range rapid.IntRange(0, 12).Draw(rt, "deliveries") {
			first := rapid.Int64Range(1, 120).Draw(rt, "first")
			deliver(first, min(120, first+rapid.Int64Range(0, 40).Draw(rt, "more")))
		}
		deliver(120, 120)
		at.reach(b.ctx, t, 120)
		b.checkSums(name, 120)
	})
}

// runMessage makes the message of a run as a relay does.
func runMessage(run outbox.Run) *message.Message {
	msg := message.NewMessage(run.Events[len(run.Events)-1].ID.String(), outbox.EncodeRun(run))
	msg.Metadata.Set(outbox.MetaFirst, fmt.Sprint(run.First))
	msg.Metadata.Set(outbox.MetaLast, fmt.Sprint(run.Last()))
	msg.Metadata.Set(outbox.MetaLogID, run.LogID.String())
	msg.Metadata.Set(outbox.MetaEpoch, fmt.Sprint(run.Epoch))
	return msg
}
