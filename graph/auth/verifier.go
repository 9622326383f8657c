package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"

	"github.com/headrace/headrace/internal/identity"
)

// Config says whose tokens are accepted. Issuer, Audience and one of KeysURL and KeysFile are needed.
type Config struct {
	KeysURL  string // where the issuer publishes its public keys, as a JSON Web Key Set
	KeysFile string // or a file that holds them
	Issuer   string // what `iss` must be
	Audience string // what `aud` must name

	RolesClaim    string        // with the roles, as a list or as words in a text; "" stands for roles. a.b is b in the object a
	Leeway        time.Duration // that clocks may differ by; 0 stands for 30 s
	Refresh       time.Duration // between reads of the keys; 0 stands for 10 min
	UnknownPause  time.Duration // at least, between reads of the keys because a token names an unknown one; 0 stands for 10 s
	MaxTokenBytes int           // 0 stands for 8 KiB

	Client *http.Client     // for KeysURL; nil stands for http.DefaultClient
	Logger *slog.Logger     // nil stands for slog.Default()
	Now    func() time.Time // for tests; nil stands for time.Now
}

func (c Config) withDefaults() Config {
	c.RolesClaim = or(c.RolesClaim, "roles")
	c.Leeway = or(c.Leeway, 30*time.Second)
	c.Refresh = or(c.Refresh, 10*time.Minute)
	c.UnknownPause = or(c.UnknownPause, 10*time.Second)
	c.MaxTokenBytes = or(c.MaxTokenBytes, 8<<10)
	c.Client = or(c.Client, http.DefaultClient)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Verifier accepts JSON Web Tokens. It is safe for concurrent use.
type Verifier struct {
	cfg      Config
	keys     *keys
	parser   *jwt.Parser
	accepted accepted
}

// NewVerifier returns a Verifier that has read the keys. Keys that cannot be read now are no error, since their issuer may
// be down for a moment: it is logged, and they are read again when the first token needs them. A file that cannot be read
// and a Config without what is needed are errors.
func NewVerifier(ctx context.Context, cfg Config) (*Verifier, error) {
	cfg = cfg.withDefaults()
	if cfg.Issuer == "" || cfg.Audience == "" {
		return nil, errors.New("the issuer and the audience of tokens must be given")
	}
	if (cfg.KeysURL == "") == (cfg.KeysFile == "") {
		return nil, errors.New("the keys' URL or their file must be given, and not both")
	}
	v := &Verifier{cfg: cfg, keys: &keys{
		read: fromURL(cfg.Client, cfg.KeysURL), now: cfg.Now, log: cfg.Logger,
		pause: rate.NewLimiter(rate.Every(cfg.UnknownPause), 1),
	}}
	if cfg.KeysFile != "" {
		v.keys.read = fromFile(cfg.KeysFile)
	}
	v.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{"RS256", "ES256", "EdDSA"}),
		jwt.WithIssuer(cfg.Issuer), jwt.WithAudience(cfg.Audience), jwt.WithLeeway(cfg.Leeway),
		jwt.WithExpirationRequired(), jwt.WithStrictDecoding(), jwt.WithTimeFunc(cfg.Now),
	)
	if err := v.keys.refresh(ctx); err != nil && cfg.KeysFile != "" {
		return nil, err
	}
	return v, nil
}

// Run reads the keys again from time to time, until the context ends, so that a key that its issuer withdrew is no longer
// accepted.
func (v *Verifier) Run(ctx context.Context) error {
	ticker := time.NewTicker(v.cfg.Refresh)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			_ = v.keys.refresh(ctx) // is logged
		}
	}
}

// Verify is the identity that a token stands for. The error of one that is not accepted is a *RefusedError.
func (v *Verifier) Verify(ctx context.Context, token string) (identity.Identity, error) {
	if len(token) > v.cfg.MaxTokenBytes {
		return identity.Identity{}, refused("it is too long")
	}
	keys, sum := v.keys.current.Load(), digest(sha256.Sum256([]byte(token)))
	if who, ok := v.accepted.find(keys, sum, v.cfg.Now()); ok {
		return who, nil
	}
	claims := jwt.MapClaims{}
	_, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if _, critical := t.Header["crit"]; critical {
			return nil, errors.New("it has critical parts that are not known here")
		}
		id, _ := t.Header["kid"].(string)
		return v.keys.find(ctx, id, t.Method.Alg())
	})
	if err != nil {
		return identity.Identity{}, explain(err)
	}
	who, err := v.identityOf(claims)
	if err == nil {
		v.accepted.add(keys, sum, who)
	}
	return who, err
}

// explain says what is wrong with a token without repeating anything of it.
func explain(err error) error {
	switch {
	case errors.Is(err, errUnknownKey):
		return refused("no known key has signed it")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable):
		return refused("its signature does not hold")
	case errors.Is(err, jwt.ErrTokenExpired):
		return refused("it has expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return refused("it is not valid yet")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return refused("it is of another issuer")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return refused("it is for another audience")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return refused("it says no expiry, issuer or audience")
	default:
		return refused("it is malformed")
	}
}

// Limits of what a token says, which goes into the metadata of events.
const (
	maxSubjectBytes = 100
	maxRoles        = 50
	maxRoleBytes    = 100
)

func (v *Verifier) identityOf(claims jwt.MapClaims) (identity.Identity, error) {
	subject, err := claims.GetSubject()
	switch {
	case err != nil || subject == "":
		return identity.Identity{}, refused("it names no subject")
	case len(subject) > maxSubjectBytes || !printable(subject):
		return identity.Identity{}, refused("its subject is too long, or no plain text")
	case identity.Reserved(subject):
		return identity.Identity{}, refused("its subject is kept for the server itself")
	}
	expires, err := claims.GetExpirationTime()
	if err != nil || expires == nil {
		return identity.Identity{}, refused("it says no expiry")
	}
	roles, ok := rolesOf(claim(claims, v.cfg.RolesClaim))
	if !ok {
		return identity.Identity{}, refused("its roles are no list of names, or too many")
	}
	return identity.Identity{Subject: subject, Roles: roles, Expires: expires.Add(v.cfg.Leeway)}, nil
}

// claim is the value of a claim by its whole name, or else by its path through objects.
func claim(claims map[string]any, name string) any {
	if value, ok := claims[name]; ok {
		return value
	}
	object, rest, nested := strings.Cut(name, ".")
	if inner, ok := claims[object].(map[string]any); nested && ok {
		return claim(inner, rest)
	}
	return nil
}

// rolesOf reads a list of texts, or words in one text. No claim means no roles.
func rolesOf(value any) ([]string, bool) {
	var roles []string
	switch value := value.(type) {
	case nil:
	case string:
		roles = strings.Fields(value)
	case []any:
		for _, item := range value {
			role, ok := item.(string)
			if !ok {
				return nil, false
			}
			roles = append(roles, role)
		}
	default:
		return nil, false
	}
	for _, role := range roles {
		if role == "" || len(role) > maxRoleBytes || !printable(role) {
			return nil, false
		}
	}
	return roles, len(roles) <= maxRoles
}

func printable(text string) bool {
	return strings.ToValidUTF8(text, "") == text && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' })
}

// RefusedError says why a token is not accepted, in words that are fit for its sender.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return fmt.Sprintf("the token is not accepted: %s", e.Reason) }

func refused(reason string) error { return &RefusedError{Reason: reason} }
