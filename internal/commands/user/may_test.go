package user_test

import (
	"testing"

	"github.com/headrace/headrace/internal/commands/decidertest"
	"github.com/headrace/headrace/internal/commands/user"
	"github.com/headrace/headrace/internal/identity"
)

func TestWhoMayDoWhatWithAUser(t *testing.T) {
	t.Parallel()
	self := identity.Identity{Subject: decidertest.Stream(user.Category)}
	eve := identity.Identity{Subject: "user-eve", Roles: []string{"customer"}}
	clerk := identity.Identity{Subject: "clerk", Roles: []string{identity.Staff}}

	for _, who := range []identity.Identity{{}, self, eve, clerk} {
		given().As(who).When(user.Register(registered)).Then(t, registered)
	}
	for _, command := range []user.Command{
		user.Rename{Name: "Ada L."}, user.ChangeEmail{Email: "ada@example.com"}, user.Deactivate{},
	} {
		for _, who := range []identity.Identity{self, clerk} {
			given(registered).As(who).When(command).Effects(t) // fails when it was refused
			given().As(who).When(command).ThenRejected(t, user.CodeNotFound)
		}
		for _, who := range []identity.Identity{{}, eve} {
			there := given(registered).As(who).When(command).ThenForbidden(t)
			if gone := given().As(who).When(command).ThenForbidden(t); *there != *gone {
				t.Errorf("%s: %q when it is there, %q when not", command.CommandType(), there, gone)
			}
		}
	}
}
