// Package identity says who asks. The edge makes an Identity of a token or a session, once for each request or socket;
// commands judge by it (commands.Decider.May) and views narrow by it (queries.Access).
//
// It promises that the zero Identity is nobody: a caller who forgot to say who asks gets what a stranger gets. It
// authenticates nobody itself, and knows no rule.
package identity

import (
	"context"
	"slices"
	"strings"
	"time"
)

// Staff is the role of those who look after everything: it is what the raw log asks for, and what the example's rules
// know beside an object's owner.
const Staff = "staff"

// SystemPrefix begins the subjects of the program's own policies. The edge takes it from nobody, so that no client
// shares a policy's command ids.
const SystemPrefix = "policy:"

// InboxPrefix begins the subjects of those who send messages from outside; what follows is the topic. The edge takes it
// from nobody either.
const InboxPrefix = "inbox:"

// Identity is who asks, as far as it is known. The zero value is nobody. It is a value, and never changed: its roles are
// shared between copies.
type Identity struct {
	Subject string    // the name for ever, such as a user's id; empty for nobody
	Roles   []string  // in any order
	Expires time.Time // when it has to be proved anew; zero: never

	unrestricted bool
}

// System is the identity of the program itself acting under a name that begins with SystemPrefix: nothing is forbidden
// to it.
func System(name string) Identity { return Unrestricted(name) }

// Inbox is the identity of whoever sends messages on a topic from outside. It has no role and no right but those that a
// write model gives to this very name.
func Inbox(topic string) Identity { return Identity{Subject: InboxPrefix + topic} }

// Unrestricted is an identity to which nothing is forbidden, for a server that was told to authenticate nobody. The
// subject may be empty.
func Unrestricted(subject string) Identity { return Identity{Subject: subject, unrestricted: true} }

// Unrestricted reports whether nothing is forbidden to it. Rules for what only the program itself may do ask for this.
func (i Identity) Unrestricted() bool { return i.unrestricted }

// Anonymous reports whether nobody in particular asks.
func (i Identity) Anonymous() bool { return i.Subject == "" && !i.unrestricted }

// Is reports whether it is this subject. Nobody is the empty subject; an unrestricted identity counts as every one.
func (i Identity) Is(subject string) bool {
	return i.unrestricted || (subject != "" && i.Subject == subject)
}

// Has reports whether it has the role. An unrestricted identity has all.
func (i Identity) Has(role string) bool { return i.unrestricted || slices.Contains(i.Roles, role) }

// Expired reports whether it had to be proved anew by then.
func (i Identity) Expired(now time.Time) bool { return !i.Expires.IsZero() && !now.Before(i.Expires) }

// Reserved reports whether the subject is kept for the program's own policies, or for messages from outside.
func Reserved(subject string) bool {
	return strings.HasPrefix(subject, SystemPrefix) || strings.HasPrefix(subject, InboxPrefix)
}

type key struct{}

// NewContext carries the identity from the edge that made it to the resolvers that ask for it. Behind them it is an
// argument.
func NewContext(ctx context.Context, who Identity) context.Context {
	return context.WithValue(ctx, key{}, who)
}

// FromContext is the identity that the context carries, or nobody.
func FromContext(ctx context.Context) Identity {
	who, _ := ctx.Value(key{}).(Identity)
	return who
}
