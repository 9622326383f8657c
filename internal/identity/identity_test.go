package identity_test

import (
	"context"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/identity"
)

func TestWhoIsWho(t *testing.T) {
	t.Parallel()
	var nobody identity.Identity
	ada := identity.Identity{Subject: "ada"}
	clerk := identity.Identity{Subject: "clerk", Roles: []string{"desk", identity.Staff}}
	off := identity.Unrestricted("")
	policy := identity.System("policy:checkout")
	for _, c := range []struct {
		what      string
		got, want bool
	}{
		{"nobody is anonymous", nobody.Anonymous(), true},
		{"nobody is the empty subject", nobody.Is(""), false},
		{"nobody is somebody", nobody.Is("ada"), false},
		{"nobody has a role", nobody.Has(identity.Staff), false},
		{"nobody has the empty role", nobody.Has(""), false},
		{"nobody is unrestricted", nobody.Unrestricted(), false},
		{"ada is herself", ada.Is("ada"), true},
		{"ada is another", ada.Is("ADA"), false},
		{"ada is anonymous", ada.Anonymous(), false},
		{"ada is staff", ada.Has(identity.Staff), false},
		{"the clerk is staff", clerk.Has(identity.Staff), true},
		{"the clerk is unrestricted", clerk.Unrestricted(), false},
		{"without authentication anybody is anybody", off.Is("ada"), true},
		{"without authentication anybody has every role", off.Has("anything"), true},
		{"without authentication nobody is anonymous", off.Anonymous(), false},
		{"a policy is unrestricted", policy.Unrestricted(), true},
		{"a policy's name is reserved", identity.Reserved(policy.Subject), true},
		{"a sender's name is reserved", identity.Reserved(identity.Inbox("payments").Subject), true},
		{"a sender is unrestricted", identity.Inbox("payments").Unrestricted(), false},
		{"a sender has a role", identity.Inbox("payments").Has(identity.Staff), false},
		{"ada's name is reserved", identity.Reserved("ada"), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v", c.what, c.got)
		}
	}
}

func TestExpired(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		expires time.Time
		want    bool
	}{{time.Time{}, false}, {now.Add(time.Nanosecond), false}, {now, true}, {now.Add(-time.Second), true}} {
		if got := (identity.Identity{Subject: "ada", Expires: c.expires}).Expired(now); got != c.want {
			t.Errorf("expires %v: %v", c.expires, got)
		}
	}
}

func TestContextCarriesIdentity(t *testing.T) {
	t.Parallel()
	if who := identity.FromContext(context.Background()); !who.Anonymous() {
		t.Errorf("a context without identity carries %+v", who)
	}
	ctx := identity.NewContext(context.Background(), identity.System("policy:checkout"))
	if who := identity.FromContext(ctx); who.Subject != "policy:checkout" || !who.Unrestricted() {
		t.Errorf("the context carries %+v", who)
	}
}
