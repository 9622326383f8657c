package graph_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/internal/identity"
)

const wholeDryRun = `dryRun { asOf version events { version type schemaVersion data } duplicate { version token }
	claims releases messages { topic key payload delay } }`

// What a dry run says is what the command then does: its refusal, its events, the version and the object. Each command is
// sent twice, as a dry run and then for good.
func TestADryRunIsWhatTheCommandThenDoes(t *testing.T) {
	t.Parallel()
	b := setup(t, many())
	rapid.Check(t, func(rt *rapid.T) {
		id := b.post(`mutation { openCart(input: {ownerId: "ada", currency: "EUR"}) { receipt { stream } } }`, nil).at(t, "openCart", "receipt", "stream").(string)
		var document strings.Builder
		n := rapid.IntRange(1, 8).Draw(rt, "commands")
		for i := range n {
			version := ""
			if rapid.IntRange(0, 4).Draw(rt, "stale") == 0 {
				version = "expectedVersion: 2"
			}
			command := drawCommand(rt, id, version)
			object := fmt.Sprintf("userErrors { code message field } cart { %s }", wholeCart)
			fmt.Fprintf(&document, " d%d: %s { %s %s receipt { version } }", i, strings.Replace(command, "(input: {", "(input: {dryRun: true, ", 1), object, wholeDryRun)
			fmt.Fprintf(&document, " r%d: %s { %s dryRun { asOf } receipt { version } }", i, command, object)
		}
		a := b.post("mutation {"+document.String()+"}", nil)
		if a.code() != nil {
			rt.Fatalf("%s", a.raw)
		}
		events := b.post(`query($c: String!) { events(stream: $c, first: 100) { nodes { version type schemaVersion data } } }`, in{"c": id}).at(t, "events", "nodes").([]any)
		recorded := 1
		for i := range n {
			dry, real := a.at(t, fmt.Sprint("d", i)).(map[string]any), a.at(t, fmt.Sprint("r", i)).(map[string]any)
			would := dry["dryRun"].(map[string]any)
			same(rt, "dry receipt", dry["receipt"], nil)
			same(rt, "real dry run", real["dryRun"], nil)
			same(rt, "refusals", dry["userErrors"], real["userErrors"])
			same(rt, "cart", timeless(dry["cart"]), timeless(real["cart"]))
			wanted := []any{}
			if receipt, _ := real["receipt"].(map[string]any); receipt != nil {
				version := int(receipt["version"].(float64))
				same(rt, "version", would["version"], receipt["version"])
				wanted = events[recorded:version]
				recorded = version
			}
			same(rt, "events", would["events"], wanted)
		}
		same(rt, "events in all", len(events), recorded)
	})
}

// timeless is an object but for when and where in the log it changed: others append in between.
func timeless(object any) any {
	fields, ok := object.(map[string]any)
	if !ok {
		return nil
	}
	out := maps.Clone(fields)
	delete(out, "position")
	delete(out, "updatedAt")
	return out
}

func TestADryRunJudgesClaimsVersionsAndCommandIDs(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	register := func(arguments string) answer {
		return b.post(fmt.Sprintf(`mutation { registerUser(input: {%s}) { receipt { version stream token } userErrors { code field } user { id email version } %s } }`, arguments, wholeDryRun), nil)
	}
	dry := register(`email: "ada@example.org", name: "Ada", dryRun: true, commandId: "c-1"`)
	equal(t, "receipt", dry.at(t, "registerUser", "receipt"), nil)
	equal(t, "would-be user", dry.at(t, "registerUser", "user", "email"), any("ada@example.org"))
	equal(t, "as of", dry.at(t, "registerUser", "dryRun", "asOf"), any("0"))
	equal(t, "claim", dry.at(t, "registerUser", "dryRun", "claims", 0), any("user.email:ada@example.org"))
	equal(t, "letter", dry.at(t, "registerUser", "dryRun", "messages", 0, "topic") != nil, true)
	real := register(`email: "ada@example.org", name: "Ada", commandId: "c-1"`)
	id := real.at(t, "registerUser", "receipt", "stream")

	taken := register(`email: "Ada@example.org", name: "A2", dryRun: true`)
	equal(t, "a taken key", taken.at(t, "registerUser", "userErrors", 0, "code"), any("EMAIL_TAKEN"))
	equal(t, "as of", taken.at(t, "registerUser", "dryRun", "asOf"), any("1"))
	equal(t, "object", taken.at(t, "registerUser", "user"), nil)
	again := register(`email: "ada@example.org", name: "Ada", commandId: "c-1", dryRun: true`)
	equal(t, "a used id", again.at(t, "registerUser", "dryRun", "duplicate", "token"), real.at(t, "registerUser", "receipt", "token"))
	equal(t, "its user", again.at(t, "registerUser", "user", "id"), id)
	reused := register(`email: "eve@example.org", name: "Eve", commandId: "c-1", dryRun: true`)
	equal(t, "an id used for something else", reused.at(t, "registerUser", "userErrors", 0, "code"), any("COMMAND_ID_REUSED"))
	empty := register(`email: "eve@example.org", name: "Eve", commandId: "", dryRun: true`)
	equal(t, "an id that is none", empty.at(t, "registerUser", "userErrors", 0, "code"), any("REQUIRED"))
	equal(t, "which was not judged", empty.at(t, "registerUser", "dryRun", "asOf"), any("0"))

	rename := fmt.Sprintf(`mutation { changeEmail(input: {userId: %q, email: "new@example.org", expectedVersion: %%d, dryRun: true}) { userErrors { code } user { email version } %s } }`, id, wholeDryRun)
	conflict := b.post(fmt.Sprintf(rename, 7), nil)
	equal(t, "another version", conflict.at(t, "changeEmail", "userErrors", 0, "code"), any("VERSION_CONFLICT"))
	moved := b.post(fmt.Sprintf(rename, 1), nil)
	equal(t, "new address", moved.at(t, "changeEmail", "user", "email"), any("new@example.org"))
	equal(t, "released", moved.at(t, "changeEmail", "dryRun", "releases", 0), any("user.email:ada@example.org"))
	equal(t, "the user as it is", b.post(`query($u: ID!) { user(id: $u) { email version } }`, in{"u": id}).at(t, "user", "version"), any(1.0))
}

func TestADryCheckOutNamesTheOrder(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{})
	id := b.openCart()
	b.post(addItem, in{"cart": id, "price": 5})
	checkOut := func(dry bool) answer {
		return b.post(`mutation($c: ID!, $dry: Boolean) { checkOutCart(input: {cartId: $c, dryRun: $dry}) { receipt { version } userErrors { code } orderId order { id } cart { status orderId } `+wholeDryRun+` } }`,
			in{"c": id, "dry": dry})
	}
	would := checkOut(true)
	equal(t, "status", would.at(t, "checkOutCart", "cart", "status"), any("CHECKED_OUT"))
	equal(t, "no order yet", would.at(t, "checkOutCart", "order"), nil)
	did := checkOut(false)
	equal(t, "order", would.at(t, "checkOutCart", "orderId"), did.at(t, "checkOutCart", "orderId"))
	equal(t, "status", did.at(t, "checkOutCart", "order", "id"), did.at(t, "checkOutCart", "orderId"))
	refused := checkOut(true)
	equal(t, "refused", refused.at(t, "checkOutCart", "userErrors", 0, "code"), any("CART_CLOSED"))
	equal(t, "no order", refused.at(t, "checkOutCart", "orderId"), nil)
}

// What somebody may not do he may not try either.
func TestADryRunIsForThoseWhoMay(t *testing.T) {
	t.Parallel()
	b := setup(t, graph.Config{Login: func(ctx context.Context, r *http.Request, _ map[string]any) (context.Context, time.Time, error) {
		return identity.NewContext(ctx, identity.Identity{Subject: r.Header.Get("X-Actor")}), time.Time{}, nil
	}})
	id := b.post(openCart, nil, "X-Actor", "ada").at(t, "openCart", "receipt", "stream")
	abandon := `mutation($c: ID!) { abandonCart(input: {cartId: $c, dryRun: true}) { cart { status } userErrors { code } dryRun { asOf events { type } } } }`
	equal(t, "own", b.post(abandon, in{"c": id}, "X-Actor", "ada").at(t, "abandonCart", "cart", "status"), any("ABANDONED"))
	other, none := b.post(abandon, in{"c": id}, "X-Actor", "eve"), b.post(abandon, in{"c": "cart-none"}, "X-Actor", "eve")
	equal(t, "another's", other.code(), any("FORBIDDEN"))
	equal(t, "which looks like none", other.raw, none.raw)
}
