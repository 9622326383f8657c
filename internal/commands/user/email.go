package user

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"

	"github.com/headrace/headrace/internal/commands"
)

// normalised is the form of an address that is unique: two people who differ only in it would be one.
func normalised(email string) string { return strings.ToLower(strings.TrimSpace(email)) }

// claimKey is the unique key of an address. The log takes keys of up to 200 bytes, so the few addresses that would not fit
// stand there as their hash.
func claimKey(email string) string {
	const prefix, limit = "user.email:", 200
	address := normalised(email)
	if len(prefix)+len(address) <= limit {
		return prefix + address
	}
	sum := sha256.Sum256([]byte(address))
	return prefix + "sha256:" + hex.EncodeToString(sum[:])
}

// checkEmail refuses what can be no address. It asks for little, since only a mail that arrives proves an address.
func checkEmail(email string) error {
	if err := commands.CheckText("email", email, MaxEmailBytes); err != nil {
		return err
	}
	address := strings.TrimSpace(email)
	local, domain, _ := strings.Cut(address, "@")
	odd := func(r rune) bool { return r == '@' || unicode.IsSpace(r) || unicode.IsControl(r) }
	if local == "" || len(local) > 64 || strings.ContainsFunc(local, odd) ||
		strings.ContainsFunc(domain, odd) || !validDomain(domain) {
		return &commands.Rejection{
			Code: CodeInvalidEmail, Field: "email",
			Message: "the e-mail address must have the form name@domain",
		}
	}
	return nil
}

// validDomain reports whether the labels between the dots are all there.
func validDomain(domain string) bool {
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" {
			return false
		}
	}
	return true
}
