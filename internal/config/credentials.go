package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/words"
	"github.com/balena-injector/injector/key"
)

// Account is one credential, which any number of keys use.
type Account struct {
	Key         string // the name of the key whose own it is; empty: everybody's
	Credentials balena.Credentials
	Login       string // whose it is, for the journal; no secret
}

// account returns the credential of the key in p.scope: its own if it has one, else everybody's.
func (p *parser) account(s *Settings) *Account {
	of := p.scope
	if !of.hasCredential() {
		of = p.of("")
	}
	for _, a := range s.Accounts {
		if a.Key == of.key {
			return a
		}
	}
	a := &Account{Key: of.key}
	s.Accounts = append(s.Accounts, a)
	here := p.scope
	p.scope = of
	p.credentials(s, a)
	p.scope = here
	return a
}

// hasCredential reports whether a key of several has a credential of its own.
func (s scope) hasCredential() bool {
	if s.key == "" {
		return true
	}
	if s.env.Get(s.own("BALENA_USERNAME")) != "" {
		return true
	}
	for _, secret := range secretVariables {
		if s.env.Get(s.own(secret.name)) != "" || s.env.Get(s.own(secret.name+"_FILE")) != "" {
			return true
		}
	}
	return false
}

// credentials finds out what to log in with: the first kind that is there.
func (p *parser) credentials(s *Settings, a *Account) {
	c := &a.Credentials
	p.onlyOne("BALENA_USERNAME")
	c.Username = strings.TrimSpace(p.env.Get(p.scope.own("BALENA_USERNAME")))
	if err := balena.CheckUsername(c.Username); err != nil {
		p.fail(p.scope.own("BALENA_USERNAME"), "is not usable", err.Error())
	}
	c.Password = p.secret(s, "BALENA_PASSWORD")
	c.TOTP = p.secret(s, "BALENA_TOTP_SECRET")
	c.Session = p.secret(s, "BALENA_SESSION_TOKEN")
	c.UserKey = p.secret(s, userKeyVariable)
	before := len(p.problems)
	switch {
	case c.Password != nil && c.Username == "":
		p.fail(p.scope.own("BALENA_USERNAME"), "is missing beside the password", "give the account's name or e-mail address")
	case c.Password != nil:
		a.Login = strings.ToLower(c.Username)
		if c.Session != nil {
			s.Warnings = append(s.Warnings, p.scope.own("BALENA_SESSION_TOKEN")+" is not used: there is a password")
		}
	case c.Session != nil:
		p.session(s, c)
	case c.Username != "":
		p.fail(p.scope.own("BALENA_PASSWORD"), "is missing beside "+p.scope.own("BALENA_USERNAME"),
			"set it, or "+p.scope.own("BALENA_PASSWORD_FILE")+" to a file that holds it"+p.strayCredential())
	case c.UserKey != nil:
		if secret, err := c.UserKey(); err == nil {
			sum := sha256.Sum256([]byte(secret.Reveal()))
			a.Login = "key " + hex.EncodeToString(sum[:6])
		}
	default:
		if before == 0 || !p.mentions("BALENA_") {
			p.fail("BALENA_USERNAME", "and a password are missing",
				"set both, the password in BALENA_PASSWORD or BALENA_PASSWORD_FILE; or set BALENA_SESSION_TOKEN or "+
					"BALENA_SESSION_TOKEN_FILE; or, for fleet and device keys, BALENA_API_KEY_FILE"+p.strayCredential())
		}
	}
}

// canMint checks that a key of that kind can be made with its credential.
func (p *parser) canMint(k Key) {
	c := k.Account.Credentials
	if k.Kind == key.User && c.Password == nil && c.Session == nil && c.UserKey != nil {
		p.fail(p.of(k.Account.Key).own(userKeyVariable+"_FILE"), "holds a user key, which can mint fleet and device keys only",
			"set INJECTOR_KIND to fleet or device, or give BALENA_USERNAME and a password")
	}
}

// strayCredential tells of a variable that looks like a credential and is none of ours.
func (p *parser) strayCredential() string {
	known := names(nil)
	for _, kv := range p.env.entries() {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "BALENA_") || value == "" || slices.Contains(known, name) {
			continue
		}
		if name == userKeyVariable {
			return ". BALENA_API_KEY is set, and not used: put a user key into a file"
		}
		if slices.Contains(staticTokens, name) {
			return ". " + name + " is set, and not used: the injector makes such tokens, and needs a login for that"
		}
		if near := words.Nearest(name, known); near != "" {
			return ". " + name + " is set: did you mean " + near + "?"
		}
	}
	return ""
}

func (p *parser) mentions(prefix string) bool {
	for _, q := range p.problems {
		if strings.HasPrefix(q.Variable, prefix) {
			return true
		}
	}
	return false
}

// session checks a session token, which is all there is to log in with.
func (p *parser) session(s *Settings, c *balena.Credentials) {
	token, err := c.Session()
	if err != nil {
		return
	}
	ends, err := balena.SessionExpiry(token)
	if err == nil && p.env.Get("INJECTOR_SESSION_CACHE") == "" {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s is the only credential, and INJECTOR_SESSION_CACHE is not set: a "+
			"start after %s fails, and so does one that has to mint more than 20 minutes after that login",
			p.scope.named("BALENA_SESSION_TOKEN"), ends.UTC().Format(time.RFC3339)))
	}
}

// forms are what a credential's text must be like.
var forms = map[string]func(key.Secret) error{
	"BALENA_PASSWORD": balena.CheckPassword, "BALENA_TOTP_SECRET": balena.CheckTOTPSecret,
	"BALENA_SESSION_TOKEN": balena.CheckSessionToken, userKeyVariable: balena.CheckUserKey,
}

// secret returns the source of a credential, or nil if it is not set.
func (p *parser) secret(s *Settings, name string) balena.Source {
	p.onlyOneName(name)
	isUserKey, check := name == userKeyVariable, forms[name]
	name, fileName := p.scope.own(name), p.scope.own(name+"_FILE")
	value, file := p.env.Get(name), p.env.Get(fileName)
	switch {
	case value != "" && isUserKey:
		// On balena devices the platform sets this one in every container: it is not for us.
		value = ""
	case value != "" && file != "":
		p.fail(name, "and "+fileName+" are both set", "keep one")
	}
	if value != "" {
		secret := key.NewSecret(withoutLineEnd(value))
		p.form(s, name, secret, check)
		return func() (key.Secret, error) { return secret, nil }
	}
	if file == "" {
		return nil
	}
	if !filepath.IsAbs(file) {
		// Not shown: a user who mixes the two variables up has put the secret itself here.
		p.fail(fileName, "is not the absolute path of a file", "give a path such as /run/secrets/balena, and what is in the "+
			"file stays out of the environment")
	} else if secret, err := readSecret(file); err != nil {
		p.fail(fileName, "cannot be used", err.Error())
	} else {
		p.form(s, fileName, secret, check)
	}
	if !slices.Contains(s.Files, file) {
		s.Files = append(s.Files, file)
	}
	return func() (key.Secret, error) {
		secret, err := readSecret(file)
		if err == nil {
			if err = check(secret); err != nil {
				err = fmt.Errorf("file %s is not usable: %w", file, err)
			}
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", fileName, err)
		}
		return secret, err
	}
}

// form refuses a credential that cannot be one, and warns of what nobody sees in it and what would cost a refused login.
func (p *parser) form(s *Settings, variable string, secret key.Secret, check func(key.Secret) error) {
	if err := check(secret); err != nil {
		p.fail(variable, "is not usable", err.Error())
		return
	}
	text := secret.Reveal()
	if strings.TrimSpace(text) != text && strings.Contains(variable, "PASSWORD") { // tokens are trimmed
		s.Warnings = append(s.Warnings, variable+" begins or ends with white space, which counts as part of it")
	}
	if balena.InQuotes(text) {
		s.Warnings = append(s.Warnings, "what "+variable+" gives is between quotes, which count as part of it: remove them if they do not "+
			"belong to the password")
	}
}

// onlyOneName refuses a credential that is set by both of its names.
func (p *parser) onlyOneName(name string) {
	for _, name := range []string{name, name + "_FILE"} {
		if name != userKeyVariable {
			p.onlyOne(name)
		}
	}
}

func (p *parser) onlyOne(name string) {
	if p.scope.key == "" && p.env.Get(name) != "" && p.env.Get(otherName(name)) != "" {
		p.fail(name, "and "+otherName(name)+" are both set", "keep one")
	}
}

// withoutLineEnd cuts off the line breaks that editors, shells and env files add: they belong to no credential.
func withoutLineEnd(text string) string { return strings.TrimRight(text, "\r\n") }

// readSecret reads a credential's file. The line break that editors add does not belong to it.
func readSecret(path string) (key.Secret, error) {
	data, err := readFile(path)
	text := withoutLineEnd(string(data))
	if err == nil && text == "" {
		err = errors.New("file " + path + " is empty")
	}
	if err != nil {
		return key.Secret{}, err
	}
	return key.NewSecret(text), nil
}
