// Package activityview answers what was done, by line: one row for each event of carts, orders and users, with the
// user it concerns and a sentence. It has no write side.
//
// It promises a line for every event of the types it declares, once, in the order of the log. It does not promise
// that a line says who did it: that is the actor, who may be somebody else or nobody known.
package activityview

import (
	"strconv"
	"time"
)

// Name is the view's stable name: of the SQL view, and of the projection to wait for.
const Name = "activity"

// Activity is one line of the log of what users did.
type Activity struct {
	Position   int64     `db:"position"` // of the event in the log
	UserID     string    `db:"user_id"`  // whom it concerns: a user's own stream, or the owner of the cart or order
	Stream     string    `db:"stream"`
	Type       string    `db:"type"`
	Summary    string    `db:"summary"`    // a sentence in English, for people
	Actor      string    `db:"actor"`      // on whose behalf; empty when not known
	Roles      []string  `db:"roles"`      // that the actor had then
	RequestID  string    `db:"request_id"` // by which the command came; empty when a policy gave it, or before this was kept
	RecordedAt time.Time `db:"recorded_at"`
}

const idPrefix = "activity-"

// ID names the line among all objects: "activity-" and the position.
func (a Activity) ID() string { return idPrefix + strconv.FormatInt(a.Position, 10) }
