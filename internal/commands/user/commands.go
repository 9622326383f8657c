package user

// Command is what can be asked of a user.
//
//sumtype:decl
type Command interface {
	CommandType() string
	isUserCommand()
}

// Register begins a user with an e-mail address that no other active user has.
type Register struct {
	Email string `json:"email"`
	Name  string `json:"name"`
}

// Rename changes what the user is called.
type Rename struct {
	Name string `json:"name"`
}

// ChangeEmail changes the user's address to one that no other active user has.
type ChangeEmail struct {
	Email string `json:"email"`
}

// Deactivate ends the user and frees the address.
type Deactivate struct {
	Reason string `json:"reason,omitempty"`
}

func (Register) CommandType() string    { return "user.register" }
func (Rename) CommandType() string      { return "user.rename" }
func (ChangeEmail) CommandType() string { return "user.change_email" }
func (Deactivate) CommandType() string  { return "user.deactivate" }

func (Register) isUserCommand()    {}
func (Rename) isUserCommand()      {}
func (ChangeEmail) isUserCommand() {}
func (Deactivate) isUserCommand()  {}
