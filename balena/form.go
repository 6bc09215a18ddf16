package balena

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/balena-injector/injector/key"
)

// Every credential is checked for its form before it is used, so that a paste that went wrong costs no request, and no
// refused login. Errors never show what is there.

// CheckPassword reports what is wrong with a password's form; nil if it can be one.
func CheckPassword(secret key.Secret) error {
	text := secret.Reveal()
	if err := checkText(text); err != nil {
		return err
	}
	switch {
	case isAssignment(text, "PASSWORD"):
		return errAssignment
	case isReference(text):
		return errReference
	case isObject(text):
		return errors.New("it is JSON: give the password alone")
	case isSession(text):
		return errors.New("it is a session token: give it as BALENA_SESSION_TOKEN or BALENA_SESSION_TOKEN_FILE")
	}
	return nil
}

// CheckTOTPSecret reports what is wrong with a TOTP secret's form; nil if it can be one.
func CheckTOTPSecret(secret key.Secret) error {
	text := secret.Reveal()
	if err := checkToken(text, "TOTP_SECRET"); err != nil {
		return err
	}
	if digits := strings.TrimSpace(text); len(digits) == 6 && strings.Trim(digits, "0123456789") == "" {
		return errors.New("it is one code of six digits: give the secret that codes are made with, which is behind the QR code")
	}
	_, err := totpSeed(secret)
	return err
}

// CheckSessionToken reports what is wrong with a session token's form; nil if it can be one.
func CheckSessionToken(secret key.Secret) error {
	text := strings.TrimSpace(secret.Reveal())
	if err := checkToken(text, "SESSION_TOKEN", "TOKEN"); err != nil {
		return err
	}
	if strings.Trim(text, lettersAndDigits) == "" && len(text) >= 20 {
		return errors.New(
			"it looks like an API key, which has no dots: give the session token of a login, or the key as BALENA_API_KEY_FILE")
	}
	_, err := parseSession(secret)
	return err
}

// CheckUserKey reports what is wrong with a user key's form; nil if it can be one.
func CheckUserKey(secret key.Secret) error {
	text := secret.Reveal()
	switch err := checkToken(text, "API_KEY", "TOKEN"); {
	case err != nil:
		return err
	case isSession(text):
		return errors.New("it is a session token: give it as BALENA_SESSION_TOKEN or BALENA_SESSION_TOKEN_FILE")
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"'`,;$<>", r) }):
		return errors.New("it has blanks, quotes or other characters that no API key has")
	case len(text) < shortestKey:
		return fmt.Errorf("it has %d characters, and API keys have 32: it was cut off, or is something else", len(text))
	}
	return nil
}

// shortestKey is how short a key of somebody's own choice may be; balena's have 32 characters.
const shortestKey = 16

// CheckUsername reports what is wrong with the form of a user name or an e-mail address; nil if it can be one.
func CheckUsername(text string) error {
	switch err := checkText(text); {
	case err != nil:
		return err
	case isAssignment(text, "USERNAME"):
		return errAssignment
	case isReference(text):
		return errReference
	case strings.ContainsAny(text, " \t\"'`<>,;:$(){}[]\u201c\u201d"):
		return errors.New("it has quotes, brackets, blanks or other characters that no user name has")
	}
	return nil
}

var (
	errAssignment = errors.New("it begins with the name of a variable: keep what comes after that")
	errReference  = errors.New("it is the name of a variable that nobody has replaced by its value")
)

const lettersAndDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// checkText reports what no credential can have.
func checkText(text string) error {
	switch {
	case strings.HasPrefix(text, "\xff\xfe"), strings.HasPrefix(text, "\xfe\xff"):
		return errors.New("it is UTF-16 text: save it as UTF-8")
	case !utf8.ValidString(text):
		return errors.New("it is not UTF-8 text, but perhaps Latin-1 (ISO 8859-1, Windows-1252): save it as UTF-8")
	case strings.HasPrefix(text, "\ufeff"):
		return errors.New("it begins with a byte order mark: save it as UTF-8 without one")
	case strings.ContainsAny(text, "\r\n"):
		return errors.New("it has more than one line: keep the credential alone")
	case strings.ContainsFunc(text, unicode.IsControl):
		return errors.New("it has a zero byte, a tab or another control character in it")
	}
	return nil
}

// checkToken is checkText for what is pasted with something around it more often than not. names are what a variable
// that holds it may be called, behind BALENA_ or INJECTOR_.
func checkToken(text string, names ...string) error {
	if err := checkText(text); err != nil {
		return err
	}
	first, _, _ := strings.Cut(text, " ")
	switch {
	case strings.EqualFold(first, "Bearer"), strings.EqualFold(first, "Authorization:"):
		return errors.New("it begins with " + first + ", as a header does: keep what comes after that")
	case InQuotes(text):
		return errors.New("it is between quotes: remove them")
	case isObject(text):
		return errors.New("it is JSON: give the value alone, without names, braces and quotes")
	case isReference(text):
		return errReference
	}
	for _, name := range names {
		if isAssignment(text, name) {
			return errAssignment
		}
	}
	return nil
}

// InQuotes reports whether a text begins and ends with the same quote.
func InQuotes(text string) bool {
	n := len(text)
	return n >= 2 && (text[0] == '"' || text[0] == '\'' || text[0] == '`') && text[0] == text[n-1]
}

// isAssignment reports whether a text begins with a variable's name, BALENA_, INJECTOR_ or nothing before it, and = or,
// as in YAML, a colon and a blank.
func isAssignment(text, name string) bool {
	text = strings.Replace(strings.TrimPrefix(text, "export "), ": ", "=", 1)
	before, _, ok := strings.Cut(text, "=")
	before = strings.TrimSuffix(strings.ToUpper(before), "_FILE")
	return ok && (before == name || before == "BALENA_"+name || before == "INJECTOR_"+name)
}

// isReference reports whether a text is a variable of a shell or a template that was not replaced.
func isReference(text string) bool {
	return strings.HasPrefix(text, "${") && strings.HasSuffix(text, "}") ||
		strings.HasPrefix(text, "{{") && strings.HasSuffix(text, "}}") ||
		strings.HasPrefix(text, "$BALENA_") ||
		strings.HasPrefix(text, "$INJECTOR_")
}

func isObject(text string) bool {
	var fields map[string]json.RawMessage
	return strings.HasPrefix(strings.TrimSpace(text), "{") && json.Unmarshal([]byte(text), &fields) == nil
}

func isSession(text string) bool {
	_, err := parseSession(key.NewSecret(text))
	return err == nil
}

// checked returns a source whose secrets have the form that check wants; nil for nil.
func (s Source) checked(check func(key.Secret) error) Source {
	if s == nil {
		return nil
	}
	return func() (key.Secret, error) {
		secret, err := s()
		if err != nil || secret.IsZero() {
			return secret, err
		}
		if err := check(secret); err != nil {
			return key.Secret{}, fmt.Errorf("it is not usable: %w", err)
		}
		return secret, nil
	}
}

// checked returns the credentials with all sources checked for form.
func (c Credentials) checked() Credentials {
	c.Password, c.TOTP = c.Password.checked(CheckPassword), c.TOTP.checked(CheckTOTPSecret)
	c.Session, c.UserKey = c.Session.checked(CheckSessionToken), c.UserKey.checked(CheckUserKey)
	return c
}
