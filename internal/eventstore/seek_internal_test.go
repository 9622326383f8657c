package eventstore

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headrace/headrace/internal/pgtest"
)

// Every third event is of the long stream, at versions 1 to 10,000.
const (
	longStream = 10_000
	sqlLong    = `insert into events (position, version, recorded_at, id, stream, type, schema_version, data, metadata)
select n, case n % 3 when 0 then n / 3 else n - n / 3 end, now(), gen_random_uuid(), case n % 3 when 0 then 'long-1' else 'other-1' end,
	case n % 6 when 0 then 'a' else 'b' end, 1, '{}', '{}' from generate_series(1, 30000) n`
)

func fillLong(t *testing.T) (*Store, *pgxpool.Pool) {
	t.Helper()
	pool := pgtest.Pool(t)
	if _, err := pool.Exec(t.Context(), sqlLong); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `analyze events`); err != nil {
		t.Fatal(err)
	}
	registry, err := NewRegistry()
	if err != nil {
		t.Fatal(err)
	}
	store, err := Open(t.Context(), pool, registry, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close(context.Background()) })
	return store, pool
}

func TestAPageOfAStreamBeginsAfterAnyPosition(t *testing.T) {
	t.Parallel()
	store, _ := fillLong(t)
	for _, after := range []int64{0, 1, 2, 3, 4, 5, 6, 7, 14_999, 15_000, 15_001, 29_993, 29_994, 29_996, 29_997, 29_998, 29_999, 30_000} {
		for types, step := range map[string]int64{"": 3, "a": 6} {
			q := LogQuery{After: after, Stream: "long-1", Limit: 10}
			if types != "" {
				q.Types = []string{types}
			}
			page, err := store.ReadLog(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			want := after/step*step + step
			for i, e := range page.Events {
				if e.Position != want+int64(i)*step || e.Version != e.Position/3 {
					t.Fatalf("after %d, types %q: event %d is at %d, version %d", after, types, i, e.Position, e.Version)
				}
			}
			if n := min(10, (30_000-after/step*step)/step); int64(len(page.Events)) != n {
				t.Errorf("after %d, types %q: %d events, want %d", after, types, len(page.Events), n)
			}
		}
	}
	var all int
	for e, err := range store.Log(t.Context(), LogQuery{Stream: "long-1", Limit: 777}) {
		if all++; err != nil || e.Version != int64(all) {
			t.Fatalf("event %d has version %d: %v", all, e.Version, err)
		}
	}
	if all != longStream {
		t.Errorf("%d events in all", all)
	}
	none, err := store.ReadLog(t.Context(), LogQuery{After: 9, Stream: "none-1"})
	if err != nil || len(none.Events) > 0 || none.ScannedTo != 30_000 {
		t.Errorf("a stream that is not there: %+v, %v", none, err)
	}
}

// The pages of a stream cost alike, wherever they begin.
func TestAPageOfAStreamTouchesFewBlocks(t *testing.T) {
	t.Parallel()
	_, pool := fillLong(t)
	for _, after := range []int64{0, 3, 15_000, 15_001, 29_700, 29_701} {
		var plan []byte
		explained := "explain (analyze, buffers, format json) " + sqlReadLogStream
		if err := pool.QueryRow(t.Context(), explained, after, int64(30_000), 20, "long-1", []string{}).Scan(&plan); err != nil {
			t.Fatal(err)
		}
		var read []struct {
			Plan map[string]any
		}
		if err := json.Unmarshal(plan, &read); err != nil {
			t.Fatal(err)
		}
		blocks := read[0].Plan["Shared Hit Blocks"].(float64) + read[0].Plan["Shared Read Blocks"].(float64)
		if blocks > 100 {
			t.Errorf("a page after %d touches %v blocks: %s", after, blocks, plan)
		}
	}
}

func TestEventsAtPositions(t *testing.T) {
	t.Parallel()
	store, _ := fillLong(t)
	events, err := store.EventsAt(t.Context(), []int64{9, 0, 30_001, 3, -1, 9})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(len(events), events[0].Position, events[1].Position); got != "2 3 9" {
		t.Errorf("got %s", got)
	}
	if none, err := store.EventsAt(t.Context(), nil); err != nil || len(none) > 0 {
		t.Errorf("got %v, %v", none, err)
	}
}
