package user

// Event is what can happen to a user.
//
//sumtype:decl
type Event interface {
	EventType() string
	isUserEvent()
}

// Registered begins a user.
type Registered struct {
	Email string `json:"email"` // as typed; the claim is on the trimmed, lower-cased address
	Name  string `json:"name"`
}

// Renamed says what the user is called from now on.
type Renamed struct {
	Name string `json:"name"`
}

// EmailChanged says where the user is reached from now on.
type EmailChanged struct {
	Email string `json:"email"`
}

// Deactivated ends a user. The address is free again for others.
type Deactivated struct {
	Reason string `json:"reason,omitempty"`
}

func (Registered) EventType() string   { return "user.registered" }
func (Renamed) EventType() string      { return "user.renamed" }
func (EmailChanged) EventType() string { return "user.email_changed" }
func (Deactivated) EventType() string  { return "user.deactivated" }

func (Registered) isUserEvent()   {}
func (Renamed) isUserEvent()      {}
func (EmailChanged) isUserEvent() {}
func (Deactivated) isUserEvent()  {}
