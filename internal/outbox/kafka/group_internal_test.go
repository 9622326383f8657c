package kafka

import (
	"testing"

	"github.com/IBM/sarama"
)

// grouped is a broker that coordinates a group of one, whose member has the one partition of "letters" to itself.
func grouped(t *testing.T) *sarama.MockBroker {
	t.Helper()
	broker := sarama.NewMockBroker(t, 1)
	t.Cleanup(broker.Close)
	broker.SetHandlerByMap(map[string]sarama.MockResponse{
		"ApiVersionsRequest":     sarama.NewMockApiVersionsResponse(t),
		"MetadataRequest":        sarama.NewMockMetadataResponse(t).SetController(1).SetBroker(broker.Addr(), 1).SetLeader("letters", 0, 1),
		"FindCoordinatorRequest": sarama.NewMockFindCoordinatorResponse(t).SetCoordinator(sarama.CoordinatorGroup, "g", broker),
		"JoinGroupRequest":       sarama.NewMockJoinGroupResponse(t).SetGroupProtocol(sarama.RangeBalanceStrategyName).SetMemberId("m"),
		"SyncGroupRequest": sarama.NewMockSyncGroupResponse(t).SetMemberAssignment(
			&sarama.ConsumerGroupMemberAssignment{Topics: map[string][]int32{"letters": {0}}}),
		"HeartbeatRequest":    sarama.NewMockHeartbeatResponse(t),
		"LeaveGroupRequest":   sarama.NewMockLeaveGroupResponse(t),
		"OffsetFetchRequest":  sarama.NewMockOffsetFetchResponse(t).SetOffset("g", "letters", 0, -1, "", sarama.ErrNoError).SetError(sarama.ErrNoError),
		"OffsetCommitRequest": sarama.NewMockOffsetCommitResponse(t),
		"OffsetRequest": sarama.NewMockOffsetResponse(t).
			SetOffset("letters", 0, sarama.OffsetOldest, 0).SetOffset("letters", 0, sarama.OffsetNewest, 3),
		"FetchRequest": sarama.NewMockFetchResponse(t, 1).SetMessage("letters", 0, 0, sarama.StringEncoder("one")).
			SetMessage("letters", 0, 1, sarama.StringEncoder("two")).SetMessage("letters", 0, 2, sarama.StringEncoder("three")),
	})
	return broker
}

// A group that has no offset begins with the oldest message. What is refused comes again before what follows, and the group's
// offset is behind what was acknowledged, and never behind what was not.
func TestAGroupsOffsetFollowsWhatIsAcknowledged(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	broker := grouped(t)
	b := open(t, Config{Brokers: []string{broker.Addr()}, Group: "g"})
	from, err := b.Subscribe(ctx, "letters")
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		want string
		ack  bool
	}{{"one", false}, {"one", false}, {"one", true}, {"two", false}, {"two", true}, {"three", false}} {
		select {
		case msg := <-from:
			if string(msg.Payload) != step.want {
				t.Fatalf("delivery %d is %q, want %q", i, msg.Payload, step.want)
			}
			if step.ack {
				msg.Ack()
			} else {
				msg.Nack()
			}
		case <-ctx.Done():
			t.Fatal("no message came")
		}
	}
	if err := b.Close(); err != nil { // which commits what is left to commit
		t.Fatal(err)
	}
	last := int64(-1)
	for _, exchange := range broker.History() {
		if request, ok := exchange.Request.(*sarama.OffsetCommitRequest); ok {
			if request.ConsumerGroup != "g" {
				t.Errorf("an offset of group %q", request.ConsumerGroup)
			}
			if last, _, err = request.Offset("letters", 0); err != nil || last > 2 {
				t.Errorf("committed %d, %v, and the third message was refused", last, err)
			}
		}
	}
	if last != 2 {
		t.Errorf("the last offset is %d, and two messages were acknowledged", last)
	}
}
