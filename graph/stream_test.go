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

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

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

func TestCartChangedOverWebSocket(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, b.url+"/graphql", &websocket.DialOptions{Subprotocols: []string{"graphql-transport-ws"}})
	must(t, err)
	defer conn.CloseNow()
	send := func(v any) { must(t, wsjson.Write(ctx, conn, v)) }
	receive := func(want string) map[string]any {
		for {
			var m map[string]any
			must(t, wsjson.Read(ctx, conn, &m))
			if m["type"] != "ping" {
				equal(t, "type", m["type"], want)
				return m
			}
		}
	}
	version := func() any {
		m := receive("next")["payload"].(map[string]any)
		return m["data"].(map[string]any)["cartChanged"].(map[string]any)["version"]
	}
	send(map[string]any{"type": "connection_init"})
	receive("connection_ack")
	send(map[string]any{"type": "subscribe", "id": "1", "payload": map[string]any{
		"query": `subscription($id: ID!) { cartChanged(id: $id) { version } }`, "variables": map[string]any{"id": id},
	}})
	equal(t, "snapshot", version(), 1.0)
	b.post(addItem, map[string]any{"cart": id, "price": 5})
	equal(t, "change", version(), 2.0)

	must(t, b.handler.Drain(ctx))
	for err == nil {
		_, _, err = conn.Read(ctx)
	}
	equal(t, "close code", websocket.CloseStatus(err), websocket.StatusServiceRestart)
}
