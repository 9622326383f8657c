package commands

// ForbiddenError says that somebody may not do what he asked for. Nothing was stored.
//
// Who may not see a stream must not learn from the refusal whether it exists: a rule that asks for the owner of a stream
// forbids on the state of a stream without events, too, and with the same words.
type ForbiddenError struct {
	Message string // a sentence for the client
}

func (e *ForbiddenError) Error() string { return e.Message }

// Forbidden is the answer of a Decider's May that says no: a *ForbiddenError.
func Forbidden(message string) error { return &ForbiddenError{Message: message} }
