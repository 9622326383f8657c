package user_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headrace/headrace/internal/commands"
	"github.com/headrace/headrace/internal/commands/decidertest"
	"github.com/headrace/headrace/internal/commands/user"
)

type scenario = decidertest.Scenario[user.Command, user.Event, user.State]

func given(events ...user.Event) scenario { return decidertest.Given(user.Decider(), events...) }

var registered = user.Registered{Email: " Ada@Example.org ", Name: "Ada"}

func TestRegisterStoresTheAddressAsTypedAndClaimsItNormalised(t *testing.T) {
	t.Parallel()
	outcome := given().When(user.Register(registered))
	outcome.Then(t, registered)
	effects := outcome.Effects(t)
	if len(effects.Claim) != 1 || effects.Claim[0].Key != "user.email:ada@example.org" ||
		effects.Claim[0].Taken.Code != user.CodeEmailTaken || effects.Claim[0].Taken.Field != "email" {
		t.Errorf("claims %+v", effects.Claim)
	}
	want := `{"userId":"` + decidertest.Stream(user.Category) + `","email":" Ada@Example.org ","name":"Ada"}`
	if len(effects.Messages) != 1 || effects.Messages[0].Topic != user.TopicWelcome ||
		string(effects.Messages[0].Payload) != want {
		t.Errorf("messages %s", effects.Messages)
	}
	given(registered).When(user.Register(registered)).ThenRejected(t, user.CodeExists)
}

func TestRename(t *testing.T) {
	t.Parallel()
	outcome := given(registered).When(user.Rename{Name: "Ada L."})
	outcome.Then(t, user.Renamed{Name: "Ada L."})
	if effects := outcome.Effects(t); effects.Claim != nil || effects.Release != nil || effects.Messages != nil {
		t.Errorf("renaming does %+v", effects)
	}
	given(registered).When(user.Rename{Name: "Ada"}).Then(t)
	given(registered, user.Renamed{Name: "Ada L."}).When(user.Rename{Name: "Ada"}).Then(t, user.Renamed{Name: "Ada"})
}

func TestChangeEmailMovesTheClaim(t *testing.T) {
	t.Parallel()
	outcome := given(registered).When(user.ChangeEmail{Email: "ada@lovelace.example"})
	outcome.Then(t, user.EmailChanged{Email: "ada@lovelace.example"})
	effects := outcome.Effects(t)
	if len(effects.Claim) != 1 || effects.Claim[0].Key != "user.email:ada@lovelace.example" ||
		!slices.Equal(effects.Release, []string{"user.email:ada@example.org"}) {
		t.Errorf("got %+v", effects)
	}
	given(registered).When(user.ChangeEmail{Email: registered.Email}).Then(t)
	given(registered).When(user.ChangeEmail{Email: "ada@example.org"}).Then(t, user.EmailChanged{Email: "ada@example.org"})
}

func TestDeactivateFreesTheAddressAndEndsTheUser(t *testing.T) {
	t.Parallel()
	outcome := given(registered, user.EmailChanged{Email: "B@c"}).When(user.Deactivate{Reason: "left"})
	outcome.Then(t, user.Deactivated{Reason: "left"})
	if got := outcome.Effects(t).Release; !slices.Equal(got, []string{"user.email:b@c"}) {
		t.Errorf("releases %q", got)
	}
	for _, command := range []user.Command{user.Rename{Name: "x"}, user.ChangeEmail{Email: "x@y"}, user.Deactivate{}} {
		given(registered, user.Deactivated{}).When(command).ThenRejected(t, user.CodeDeactivated)
		if got := given().When(command).ThenRejected(t, user.CodeNotFound).Field; got != "userId" {
			t.Errorf("refused field %q", got)
		}
	}
	given(registered, user.Deactivated{}).When(user.Register(registered)).ThenRejected(t, user.CodeExists)
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a@b", "ada.l+x@example.co.uk", "ünï@côdé.example", "\tada@example.org\n"} {
		given().When(user.Register{Email: good, Name: "x"}).Then(t, user.Registered{Email: good, Name: "x"})
	}
	for _, bad := range []string{
		" ", "ada", "@", "ada@", "@example.org", "a@b@c", "a b@c", "a@b c", "a@b..c", "a@.b", "a@b.", "a\x07@b",
		strings.Repeat("x", 65) + "@b",
	} {
		for _, command := range []user.Command{user.Register{Email: bad, Name: "x"}} {
			if got := given().When(command).ThenRejected(t, user.CodeInvalidEmail).Field; got != "email" {
				t.Errorf("%q: refused field %q", bad, got)
			}
		}
		given(registered).When(user.ChangeEmail{Email: bad}).ThenRejected(t, user.CodeInvalidEmail)
	}
}

func TestLongAddressesClaimAShortKey(t *testing.T) {
	t.Parallel()
	address := "a@" + strings.Repeat("x", user.MaxEmailBytes-2)
	key := func(email string) string {
		return given().When(user.Register{Email: email, Name: "x"}).Effects(t).Claim[0].Key
	}
	if got := key(address); len(got) > 200 || got != key(strings.ToUpper(address)) || got == key(address[:len(address)-1]) {
		t.Fatalf("got %q", got)
	}
	given().When(user.Register{Email: address + "x", Name: "x"}).ThenRejected(t, commands.CodeTooLong)
}

func TestTextsAreLimited(t *testing.T) {
	t.Parallel()
	given().When(user.Register{Email: "a@b"}).ThenRejected(t, commands.CodeRequired)
	given().When(user.Register{Name: "x"}).ThenRejected(t, commands.CodeRequired)
	given(registered).When(user.Rename{Name: strings.Repeat("x", 201)}).ThenRejected(t, commands.CodeTooLong)
	given(registered).When(user.Deactivate{Reason: strings.Repeat("x", 501)}).ThenRejected(t, commands.CodeTooLong)
}

func TestDeciderIsPure(t *testing.T) {
	t.Parallel()
	decidertest.CheckPure(t, user.Decider(), rapid.SampledFrom([]user.Command{
		user.Register(registered),
		user.Rename{Name: "a"},
		user.Rename{Name: "b"},
		user.ChangeEmail{Email: "c@d"},
		user.ChangeEmail{Email: "e@f"},
		user.Deactivate{},
	}), nil)
}

func TestRecordedJSON(t *testing.T) {
	t.Parallel()
	decidertest.CheckGolden(t, user.Events(),
		user.Registered{Email: "Ada@example.org", Name: "Ada"}, user.Renamed{Name: "Ada L."},
		user.EmailChanged{Email: "ada@lovelace.example"}, user.Deactivated{Reason: "left"})
}

func TestNewIDsAreOfTheCategory(t *testing.T) {
	t.Parallel()
	if a, b := user.NewID(), user.NewID(); a == b || !strings.HasPrefix(a, user.Category+"-") {
		t.Fatalf("got %q and %q", a, b)
	}
}
