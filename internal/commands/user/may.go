package user

import (
	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/identity"
)

// may lets anybody register, also who is not known yet, and users change themselves. A user's id is the subject of the
// identity. Staff may do everything. An id that is no user's is nobody's, so that a stranger hears the same of it as of
// another's.
func may(s State, command Command, who identity.Identity) error {
	if _, registers := command.(Register); registers || who.Is(s.ID) || who.Has(identity.Staff) {
		return nil
	}
	return commands.Forbidden("users may change themselves only")
}
