package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"time"

	"github.com/headrace/headrace/graph"
	"github.com/headrace/headrace/graph/auth"
	"github.com/headrace/headrace/graph/throttle"
)

// Auth is who is let in, and how often.
type Auth struct {
	Mode       string        `name:"auth" env:"AUTH" placeholder:"MODE" help:"jwt: requests act for who their token says. off: everybody may do everything, as whoever X-Actor says. Default jwt, but for the command dev."`
	KeysURL    string        `name:"jwks-url" env:"JWKS_URL" placeholder:"URL" help:"Where the issuer of tokens publishes its keys."`
	KeysFile   string        `name:"jwks-file" env:"JWKS_FILE" placeholder:"PATH" help:"A file with the keys, instead of JWKS_URL."`
	Issuer     string        `name:"jwt-issuer" env:"JWT_ISSUER" placeholder:"TEXT" help:"What the claim iss of tokens must be."`
	Audience   string        `name:"jwt-audience" env:"JWT_AUDIENCE" placeholder:"TEXT" help:"What the claim aud of tokens must name."`
	Leeway     time.Duration `name:"jwt-leeway" env:"JWT_LEEWAY" default:"30s" help:"How far clocks may differ."`
	RolesClaim string        `name:"jwt-roles-claim" env:"JWT_ROLES_CLAIM" default:"roles" help:"The claim with the roles; a.b is b in the object a."`

	IdentityRate throttle.Rate  `name:"rate-limit-identity" env:"RATE_LIMIT_IDENTITY" default:"100:500" placeholder:"RATE:BURST" help:"Operations of each identity: 100:500 is 100 a second and 500 at once. 0: no limit."`
	AddressRate  throttle.Rate  `name:"rate-limit-address" env:"RATE_LIMIT_ADDRESS" placeholder:"RATE:BURST" help:"The same of each address. Name the proxies in TRUSTED_PROXIES, or all clients behind one are one address."`
	Proxies      []netip.Prefix `name:"trusted-proxies" env:"TRUSTED_PROXIES" placeholder:"NETWORK" help:"Networks such as 10.0.0.0/8 whose X-Forwarded-For is believed. Comma-separated."`
}

const (
	authJWT = "jwt"
	authOff = "off"
)

// Validate is called by kong when all flags and variables are read. What is missing for jwt is said by ready, since only
// those commands need it that serve.
func (a *Auth) Validate() error {
	switch a.Mode {
	case "", authJWT, authOff:
	default:
		return fmt.Errorf("AUTH (--auth) is %q: give jwt, or off where everybody may do everything", a.Mode)
	}
	if u, err := url.Parse(a.KeysURL); a.KeysURL != "" && (err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http")) {
		return errors.New("JWKS_URL (--jwks-url) cannot be read: give https://id.example.org/.well-known/jwks.json")
	}
	if a.KeysURL != "" && a.KeysFile != "" {
		return errors.New("JWKS_URL (--jwks-url) and JWKS_FILE (--jwks-file) are both set: give one of them")
	}
	if a.Leeway < 0 || a.Leeway > 10*time.Minute {
		return fmt.Errorf("JWT_LEEWAY (--jwt-leeway) is %v: give a time up to 10m, such as 30s", a.Leeway)
	}
	return nil
}

// ready settles the mode, and refuses to serve where nobody could log in and nobody said that this is meant.
func (a *Auth) ready(unless string) error {
	a.Mode = or(a.Mode, unless)
	if a.Mode == authOff || ((a.KeysURL != "" || a.KeysFile != "") && a.Issuer != "" && a.Audience != "") {
		return nil
	}
	return &exitError{exitUsage, errors.New("nobody could log in: set JWKS_URL (--jwks-url) or JWKS_FILE (--jwks-file), JWT_ISSUER " +
		"(--jwt-issuer) and JWT_AUDIENCE (--jwt-audience) for tokens, or AUTH=off (--auth off) where everybody may do everything")}
}

func or[T comparable](v, instead T) T {
	var zero T
	if v == zero {
		return instead
	}
	return v
}

// guard tells the handler who is let in, and how often. The verifier is nil when nobody is authenticated.
func (a *Auth) guard(ctx context.Context, config *graph.Config, log *slog.Logger) (*auth.Verifier, error) {
	config.Admit = throttle.New(throttle.Config{Identity: a.IdentityRate, Address: a.AddressRate, Proxies: a.Proxies}).Admit
	if a.Mode == authOff {
		log.Warn("AUTH=off: nobody is authenticated. Everybody may do and see everything, as whoever the header X-Actor says")
		config.Login = auth.Off
		return nil, nil
	}
	verifier, err := auth.NewVerifier(ctx, auth.Config{
		KeysURL: a.KeysURL, KeysFile: a.KeysFile, Issuer: a.Issuer, Audience: a.Audience,
		Leeway: a.Leeway, RolesClaim: a.RolesClaim, Logger: log,
	})
	if err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("AUTH (--auth) is jwt: %w", err)}
	}
	config.Login = verifier.Login
	return verifier, nil
}
