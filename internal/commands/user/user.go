// Package user is the write model of users: registered with an e-mail address that no other active user has, renamed,
// moved to another address, and in the end deactivated, which frees the address.
//
// It does not prove that an address belongs to anybody, and holds no passwords.
package user

import (
	"encoding/json"
	"fmt"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/eventstore"
)

// Category is that of the users' streams, whose names are the users' ids.
const Category = "user"

// TopicWelcome is the topic of the message that asks to greet a new user. Its payload is a WelcomeMessage.
const TopicWelcome = "user.welcome"

// Limits of texts.
const (
	MaxEmailBytes  = 254
	MaxNameBytes   = 200
	MaxReasonBytes = 500
)

// Codes of refusals, beside those that package commands has for texts.
const (
	CodeNotFound     = "USER_NOT_FOUND"   // no user has this id
	CodeExists       = "USER_EXISTS"      // the user was registered before
	CodeDeactivated  = "USER_DEACTIVATED" // the user no longer changes
	CodeInvalidEmail = "INVALID_EMAIL"    // not of the form name@domain
	CodeEmailTaken   = "EMAIL_TAKEN"      // another active user has the address
)

// WelcomeMessage is the payload of a message on TopicWelcome.
type WelcomeMessage struct {
	UserID string `json:"userId"`
	Email  string `json:"email"`
	Name   string `json:"name"`
}

// State is what deciding needs to know of a user.
type State struct {
	ID          string
	Email       string // as typed; empty before the user is registered
	Name        string
	Deactivated bool
}

// NewID makes the id of a new user, which is the name of its stream.
func NewID() string { return eventstore.StreamID(Category) }

// Events are the definitions of all that users record.
func Events() []eventstore.Definition {
	return []eventstore.Definition{
		eventstore.Define[Registered](1),
		eventstore.Define[Renamed](1),
		eventstore.Define[EmailChanged](1),
		eventstore.Define[Deactivated](1),
	}
}

// Decider is the write model.
func Decider() commands.Decider[Command, Event, State] {
	return commands.Decider[Command, Event, State]{
		Category: Category,
		Initial:  func(stream string) State { return State{ID: stream} },
		May:      may,
		Decide:   decide,
		Evolve:   evolve,
		Effects:  effects,
	}
}

func evolve(s State, event Event) State {
	switch e := event.(type) {
	case Registered:
		s.Email, s.Name = e.Email, e.Name
	case Renamed:
		s.Name = e.Name
	case EmailChanged:
		s.Email = e.Email
	case Deactivated:
		s.Deactivated = true
	}
	return s
}

func decide(s State, command Command) ([]Event, error) {
	_, begins := command.(Register)
	if !begins && s.Email == "" {
		return nil, &commands.Rejection{Code: CodeNotFound, Field: "userId", Message: "there is no user with this id"}
	}
	if !begins && s.Deactivated {
		return nil, &commands.Rejection{Code: CodeDeactivated, Message: "the user was deactivated"}
	}
	switch c := command.(type) {
	case Register:
		return register(s, c)
	case Rename:
		return rename(s, c)
	case ChangeEmail:
		return changeEmail(s, c)
	case Deactivate:
		if err := commands.CheckOptionalText("reason", c.Reason, MaxReasonBytes); err != nil {
			return nil, err
		}
		return []Event{Deactivated(c)}, nil
	}
	return nil, fmt.Errorf("command %T is none of a user's", command)
}

func register(s State, c Register) ([]Event, error) {
	if s.Email != "" {
		return nil, &commands.Rejection{Code: CodeExists, Message: "the user was registered before"}
	}
	if err := checkEmail(c.Email); err != nil {
		return nil, err
	}
	if err := commands.CheckText("name", c.Name, MaxNameBytes); err != nil {
		return nil, err
	}
	return []Event{Registered(c)}, nil
}

func rename(s State, c Rename) ([]Event, error) {
	if err := commands.CheckText("name", c.Name, MaxNameBytes); err != nil {
		return nil, err
	}
	if c.Name == s.Name {
		return nil, nil
	}
	return []Event{Renamed(c)}, nil
}

func changeEmail(s State, c ChangeEmail) ([]Event, error) {
	if err := checkEmail(c.Email); err != nil {
		return nil, err
	}
	if c.Email == s.Email {
		return nil, nil
	}
	return []Event{EmailChanged(c)}, nil
}

// effects keeps the claim on the address with the user's events, and greets who is new.
func effects(before State, events []Event) commands.Effects {
	var out commands.Effects
	for _, event := range events {
		switch e := event.(type) {
		case Registered:
			out.Claim = append(out.Claim, claim(e.Email))
			out.Messages = append(out.Messages, welcome(before.ID, e))
		case EmailChanged:
			out.Claim = append(out.Claim, claim(e.Email))
			out.Release = append(out.Release, claimKey(before.Email))
		case Deactivated:
			out.Release = append(out.Release, claimKey(before.Email))
		case Renamed: // touches no address
		}
	}
	return out
}

func claim(email string) commands.Claim {
	return commands.Claim{
		Key: claimKey(email),
		Taken: &commands.Rejection{
			Code: CodeEmailTaken, Field: "email", Message: "another user has this e-mail address",
		},
	}
}

func welcome(userID string, e Registered) eventstore.Message {
	payload, err := json.Marshal(WelcomeMessage{UserID: userID, Email: e.Email, Name: e.Name})
	if err != nil {
		panic(err) // a struct of strings always encodes
	}
	return eventstore.Message{Topic: TopicWelcome, Key: userID, Payload: payload}
}
