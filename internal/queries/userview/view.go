package userview

import (
	"strings"

	"github.com/headrace/headrace/internal/commands/user"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

// View declares the view of users.
func View() queries.View[User] {
	return queries.View[User]{
		Name:      Name,
		Version:   1,
		Types:     queries.Types(user.Registered{}, user.Renamed{}, user.EmailChanged{}, user.Deactivated{}),
		Evolve:    Evolve,
		OnFailure: queries.Park,
	}
}

// Evolve returns the user after an event.
func Evolve(u User, e eventstore.Event, p eventstore.Payload) User {
	u.Version, u.Position, u.UpdatedAt = e.Version, e.Position, e.RecordedAt
	switch p := p.(type) {
	case user.Registered:
		u.ID, u.Name, u.Status, u.RegisteredAt = e.Stream, p.Name, Active, e.RecordedAt
		u.Email, u.EmailKey = p.Email, emailKey(p.Email)
	case user.Renamed:
		u.Name = p.Name
	case user.EmailChanged:
		u.Email, u.EmailKey = p.Email, emailKey(p.Email)
	case user.Deactivated:
		u.Status = Deactivated
	}
	return u
}

// emailKey is the address as it is looked for.
func emailKey(email string) string { return strings.ToLower(strings.TrimSpace(email)) }
