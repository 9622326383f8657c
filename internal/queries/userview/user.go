// Package userview answers who the users are: one row per user, folded from the user's events.
//
// It promises that a row equals the fold of its stream up to the view's checkpoint, however the events were batched.
// It does not guard that addresses are unique (the log's claims do), and keeps deactivated users.
package userview

import (
	"time"

	"github.com/headrace/headrace/internal/queries"
)

// Name is the view's stable name: of the SQL view, and of the projection to wait for.
const Name = "user"

// Status is where a user is in their life here.
type Status string

const (
	Active      Status = "ACTIVE"
	Deactivated Status = "DEACTIVATED"
)

// User is a user as readers see them.
type User struct {
	ID           string    `db:"id,key"`    // the stream's name
	Email        string    `db:"email"`     // as typed
	EmailKey     string    `db:"email_key"` // Email trimmed and lower-cased: what Filter.Email finds
	Name         string    `db:"name"`
	Status       Status    `db:"status"`
	Version      int64     `db:"version"`       // of the stream
	Position     int64     `db:"position,seen"` // in the log, of the last event seen
	RegisteredAt time.Time `db:"registered_at"`
	UpdatedAt    time.Time `db:"updated_at"`

	queries.Degradable // says when an event of it could not be handled
}
