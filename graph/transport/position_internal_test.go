package transport

import (
	"context"
	"testing"
)

func TestPositionsAreTakenInOrder(t *testing.T) {
	t.Parallel()
	s := &stream{lastEventID: "7"}
	ctx := withStream(t.Context(), s)
	if LastEventID(ctx) != "7" || LastEventID(context.Background()) != "" {
		t.Error("the last id is another")
	}
	NotePosition(context.Background(), 9, "9") // does nothing
	for round := range int64(3) {
		NotePosition(ctx, round, "a")
		NotePosition(ctx, round+10, "b")
		for _, want := range []noted{{round, "a"}, {round + 10, "b"}} {
			if got, noted := s.take(); !noted || got != want {
				t.Errorf("%v, %v is taken, want %v", got, noted, want)
			}
		}
	}
	if _, noted := s.take(); noted {
		t.Error("a position is taken that nobody noted")
	}
}
