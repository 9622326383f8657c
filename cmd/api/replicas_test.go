package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/headrace/headrace/internal/pgtest"
)

// asked is an answer with what it says of its freshness.
type asked struct {
	Data struct {
		Cart struct{ Version int } // 0: not there
	}
	Errors     json.RawMessage
	Extensions struct {
		Freshness map[string]struct {
			Replica, Stale bool
			Position, Head json.RawMessage
		}
	}
}

// fresh reads a cart and asks how fresh the answer is. The token may be empty.
func fresh(t *testing.T, server, cart, token string) asked {
	t.Helper()
	headrace := map[string]any{"freshness": true}
	if token != "" {
		headrace["atLeast"] = token
	}
	body, err := json.Marshal(map[string]any{
		"query": `query($id: ID!) { cart(id: $id) { version } }`, "variables": map[string]any{"id": cart},
		"extensions": map[string]any{"headrace": headrace},
	})
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server+"/graphql", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Headrace-Within", longestWait)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var got asked
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil || got.Errors != nil {
		t.Fatalf("%v: %s %+v", err, got.Errors, got.Data)
	}
	return got
}

// A server with a replica answers queries from it, and what a client has just written, what subscribers are told, and what
// has an ETag from the primary. The replica may end and be promoted meanwhile.
func TestTheServerReadsFromAReplicaWhatItHas(t *testing.T) {
	t.Parallel()
	primary := pgtest.Primary(t, nil)
	standby := primary.Standby(nil)
	nowhere := "postgres://u@127.0.0.1:1/none"
	p := startProgram(t, primary.URL(), "DATABASE_REPLICA_URL="+standby.URL()+" "+nowhere, "REPLICA_MAX_LAG=1h")
	s := &server{url: p.url}
	readyz := func(want string) {
		t.Helper()
		until(t, "/readyz to say "+want, func() bool {
			code, body := get(t, p.url+"/readyz")
			return code == http.StatusOK && strings.Contains(body, want)
		})
	}
	readyz(`"replica 1":"used, at most `)
	readyz(`"replica 2":"not used: it cannot be reached"`)

	cart := s.open(t)
	until(t, "the replica to answer", func() bool {
		got := fresh(t, p.url, cart, "")
		return got.Data.Cart.Version == 1 && got.Extensions.Freshness["cart"].Replica
	})
	changes := follow(t, p.url, fmt.Sprintf(`subscription { cartChanged(id: %q) { version } }`, cart))
	hear(t, changes, `"version":1`)

	standby.Exec(`select pg_wal_replay_pause()`)
	until(t, "the replica to stand still", func() (paused bool) {
		standby.QueryRow(`select pg_get_wal_replay_pause_state() = 'paused'`, &paused)
		return paused
	})
	added := s.add(t, cart, 1)
	hear(t, changes, `"version":2`)
	for range 3 {
		got := fresh(t, p.url, cart, added.Receipt.Token)
		if got.Data.Cart.Version != 2 || got.Extensions.Freshness["cart"].Replica {
			t.Errorf("with the token: %+v", got)
		}
		until(t, "the replica to answer without a token", func() bool {
			got := fresh(t, p.url, cart, "")
			replica := got.Extensions.Freshness["cart"].Replica // one that a busy machine lets answer late is not used meanwhile
			if (got.Data.Cart.Version == 1) != replica {
				t.Errorf("without a token: %+v", got)
			}
			return replica
		})
	}
	// The ETag is made of the primary's positions; what is answered with it is no older.
	if code, body := get(t, p.url+`/graphql?query={cart(id:"`+cart+`"){version}}`); code != http.StatusOK || !strings.Contains(body, `"version":2`) {
		t.Errorf("with an ETag: %d %s", code, body)
	}

	standby.Exec(`select pg_wal_replay_resume()`)
	standby.Promote()
	standby.Exec(`update cart_v1 set version = 77`)
	readyz(`"replica 1":"not used: it is no standby, or no longer`)
	if got := fresh(t, p.url, cart, ""); got.Data.Cart.Version != 2 || got.Extensions.Freshness["cart"].Replica {
		t.Errorf("after the promotion: %+v", got)
	}
}
