package graph_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/headrace/headrace/graph"
)

// positions reads n results of an events subscription over server-sent events.
func (b *bundle) positions(ctx context.Context, n int) []int {
	b.t.Helper()
	body := `{"query":"subscription { events(after: \"0\") { position } }"}`
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url+"/graphql", strings.NewReader(body))
	must(b.t, err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	must(b.t, err)
	defer response.Body.Close()
	var got []int
	lines := bufio.NewScanner(response.Body)
	for len(got) < n && lines.Scan() {
		text, isData := strings.CutPrefix(lines.Text(), "data: ")
		if !isData {
			continue
		}
		var a answer
		must(b.t, json.Unmarshal([]byte(text), &a))
		position, err := strconv.Atoi(a.at(b.t, "events", "position").(string))
		must(b.t, err)
		got = append(got, position)
	}
	return got
}

func TestEventsHaveNeitherHoleNorRepeat(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	const history, live, writers = 20, 25, 4
	for range history {
		b.openCart()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range live {
				b.post(openCart, nil)
			}
		})
	}
	for i, position := range b.positions(ctx, history+live*writers) {
		equal(t, "position", position, i+1)
	}
	writing.Wait()
}
