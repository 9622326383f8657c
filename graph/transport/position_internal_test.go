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
	NotePosition(context.Background(), 9) // does nothing
	for round := range int64(3) {
		NotePosition(ctx, round)
		NotePosition(ctx, round+10)
		for _, want := range []int64{round, round + 10} {
			if got, noted := s.take(); !noted || got != want {
				t.Errorf("%d, %v is taken, want %d", got, noted, want)
			}
		}
	}
	if _, noted := s.take(); noted {
		t.Error("a position is taken that nobody noted")
	}
}
