package graph

import (
	"testing"

	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/identity"
)

type watchedRow struct {
	position int64
	owner    string
}

// A state is told once, the newest; an object that was told of and is gone ends the subscription, and one that was never
// there does not; so does one that may not be seen any more, and one that never could be does not.
func TestWatchingTellsStatesOnce(t *testing.T) {
	t.Parallel()
	root := &root{Resolver: &Resolver{Store: &eventstore.Store{}}, rules: rules{objects: map[string]objectRule{"row": {see: func(who identity.Identity, object any) bool {
		return who.Is(object.(*watchedRow).owner)
	}}}}}
	ctx := identity.NewContext(t.Context(), identity.Identity{Subject: "ada"})
	for name, c := range map[string]struct {
		seen int64
		rows []*watchedRow
		told []int64
		more bool
		code any
	}{
		"new states":       {0, []*watchedRow{nil, {1, "ada"}, {1, "ada"}, {3, "ada"}, {2, "ada"}}, []int64{1, 3}, true, nil},
		"gone":             {0, []*watchedRow{nil, {1, "ada"}, nil}, []int64{1}, false, nil},
		"not there":        {4, []*watchedRow{nil, nil}, nil, true, nil},
		"had from before":  {2, []*watchedRow{{2, "ada"}, {3, "ada"}}, []int64{3}, true, nil},
		"of somebody else": {0, []*watchedRow{{1, "eve"}, {2, "eve"}}, nil, true, nil},
		"no longer hers":   {0, []*watchedRow{{1, "ada"}, {2, "eve"}}, []int64{1}, false, codeForbidden},
	} {
		var told []int64
		w := watching[watchedRow]{
			standing: standing{root: root, has: eventstore.Mark{Position: c.seen}}, view: "row",
			at:    func(r *watchedRow) int64 { return r.position },
			yield: func(r *watchedRow, _ eventstore.Mark) bool { told = append(told, r.position); return true },
		}
		more, code := true, any(nil)
		for _, row := range c.rows {
			var err error
			if more, err = w.tell(ctx, 0, row); err != nil {
				code = presenter{}.present(ctx, err).Extensions["code"]
			}
		}
		if len(told) != len(c.told) || (len(told) > 0 && told[len(told)-1] != c.told[len(told)-1]) || more != c.more || code != c.code {
			t.Errorf("%s: told %v, more %v, code %v", name, told, more, code)
		}
	}
}
