package graph_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/graph"
)

const wholeDelivery = `{ deliveries { name kind view shard shards position head eventsBehind millisecondsBehind owner state reason parkedStreams } }`

// deliveries are the answer's, by name and, where there are several, shard.
func deliveries(t *testing.T, a answer) map[string]map[string]any {
	t.Helper()
	named := map[string]map[string]any{}
	for _, one := range a.at(t, "deliveries").([]any) {
		d := one.(map[string]any)
		name := d["name"].(string)
		if d["shards"] != float64(1) {
			name += fmt.Sprint("/", d["shard"])
		}
		named[name] = d
	}
	return named
}

func TestDeliveriesTakeOneStatement(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	b.openCart()
	b.settle()
	b.owned("checkout") // which nobody waits for
	b.asked.take()
	a := b.post(wholeDelivery, nil)
	if asked := b.asked.take(); len(asked) != 1 {
		t.Errorf("it took %d statements: %s", len(asked), strings.Join(asked, ";\n"))
	}
	found := deliveries(t, a)
	for name, kind := range map[string]string{"cart_v1": "VIEW", "order_v1": "VIEW", "user_v1": "VIEW", "activity_v1": "VIEW", "checkout": "POLICY"} {
		d := found[name]
		equal(t, name, d["kind"], any(kind))
		equal(t, name+"'s state", d["state"], any("WORKING"))
		equal(t, name+"'s reason", d["reason"], nil)
		if owner, _ := d["owner"].(string); owner == "" {
			t.Errorf("%s has no owner", name)
		}
	}
	equal(t, "the view's name", found["cart_v1"]["view"], any("cart"))
	equal(t, "the policy's view", found["checkout"]["view"], nil)
	equal(t, "position", found["cart_v1"]["position"], any("1"))
	equal(t, "head", found["cart_v1"]["head"], any("1"))
}

// owned waits until somebody works on a checkpoint.
func (b *bundle) owned(checkpoint string) {
	b.t.Helper()
	for deadline, owned := time.Now().Add(patience), false; !owned; time.Sleep(5 * time.Millisecond) {
		must(b.t, b.pool.QueryRow(b.t.Context(), `select exists (select from checkpoints where name = $1 and lease_until > clock_timestamp())`, checkpoint).Scan(&owned))
		if time.Now().After(deadline) {
			b.t.Fatalf("nobody works on %s", checkpoint)
		}
	}
}

// A shard of a checkpoint that stands still says so, and how far behind it is, also where a number is larger than an Int.
func TestDeliveriesSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	b.openCart()
	b.settle()
	_, err := b.pool.Exec(t.Context(), `alter table events disable trigger all;
		update events set recorded_at = clock_timestamp() - interval '30 days';
		insert into checkpoints (name, shard, shards, halted_at, halt_reason) values
			('wishes', 0, 2, clock_timestamp(), 'event 1 is odd'), ('wishes', 1, 2, null, null)`)
	must(t, err)
	found := deliveries(t, b.post(wholeDelivery, nil))
	halted := found["wishes/0"]
	equal(t, "state", halted["state"], any("HALTED"))
	equal(t, "reason", halted["reason"], any("event 1 is odd"))
	equal(t, "owner", halted["owner"], nil)
	equal(t, "events behind", halted["eventsBehind"], any(1.0))
	equal(t, "30 days are more milliseconds than an Int holds", halted["millisecondsBehind"], any(2147483647.0))
	equal(t, "the other shard", found["wishes/1"]["state"], any("UNOWNED"))
}

func TestDeliveriesAreForStaff(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{Login: asSaid})
	equal(t, "a customer", b.post(wholeDelivery, nil, "X-Roles", "customer").code(), any("FORBIDDEN"))
	equal(t, "staff", b.post(wholeDelivery, nil).code(), nil)
}
