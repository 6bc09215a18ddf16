package config

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/words"
)

// texts checks what is wrong with the text of any variable, whatever it means: quotes that were to be a shell's, and
// characters that no value has. Credentials are checked where they are read.
func (p *parser) texts(keys []string) {
	known := newKnown(keys)
	for _, kv := range p.env.entries() {
		name, value, _ := strings.Cut(kv, "=")
		if !known.has(name) || isSecret(name) {
			continue
		}
		before := len(p.problems)
		switch value = strings.TrimSpace(value); {
		case balena.InQuotes(value):
			p.fail(name, "is between quotes, which are part of it", "remove them: env files and lists of variables keep quotes")
		case !utf8.ValidString(value):
			p.fail(name, "is not UTF-8 text", "write it as UTF-8")
		case strings.ContainsFunc(value, unicode.IsControl):
			p.fail(name, "has a line break or another control character in it", "give it in one line")
		}
		if len(p.problems) > before {
			p.unusable = append(p.unusable, name)
		}
	}
}

// isSecret reports whether a variable holds a credential itself, for whichever key.
func isSecret(name string) bool {
	for _, s := range secretVariables {
		_, rest, _ := strings.Cut(s.name, "_")
		if s.name != userKeyVariable && (name == s.name || strings.HasPrefix(name, "INJECTOR_") && strings.HasSuffix(name, "_"+rest)) {
			return true
		}
	}
	return false
}

// strangers are names that people give to what has another one here.
var strangers = map[string]string{
	"BALENA_USER":          "the account's name is read from BALENA_USERNAME",
	"BALENA_USER_NAME":     "the account's name is read from BALENA_USERNAME",
	"BALENA_ACCOUNT":       "the account's name is read from BALENA_USERNAME",
	"BALENA_LOGIN":         "the account's name is read from BALENA_USERNAME",
	"BALENA_EMAIL":         "the account's name or e-mail address is read from BALENA_USERNAME",
	"BALENA_USERNAME_FILE": "the name is not a secret, and is read from BALENA_USERNAME only",
	"BALENA_PASS":          "the password is read from BALENA_PASSWORD or BALENA_PASSWORD_FILE",
	"BALENA_PASS_FILE":     "the password is read from BALENA_PASSWORD or BALENA_PASSWORD_FILE",
	"BALENA_PWD":           "the password is read from BALENA_PASSWORD or BALENA_PASSWORD_FILE",
	"BALENA_PASSWD":        "the password is read from BALENA_PASSWORD or BALENA_PASSWORD_FILE",
	"BALENA_TOTP":          "the two-factor secret is read from BALENA_TOTP_SECRET or BALENA_TOTP_SECRET_FILE",
	"BALENA_URL":           "the API is read from BALENA_API_URL",
	"BALENA_API":           "the API is read from BALENA_API_URL",
	"BALENA_API_HOST":      "the API is read from BALENA_API_URL",
	"BALENA_HOST":          "the API is read from BALENA_API_URL",
}

// staticTokens are where people keep an everlasting token.
var staticTokens = []string{"BALENA_TOKEN", "BALENA_API_TOKEN", "BALENA_AUTH_TOKEN", "BALENACLOUD_TOKEN", "BALENACLOUD_API_KEY"}

// nearMisses says what is set under a name that is not read. One that means the API or a credential is a mistake that
// would send a password elsewhere, or none.
func (p *parser) nearMisses(s *Settings, keys []string) {
	known := newKnown(keys)
	for _, kv := range p.env.entries() {
		name, value, _ := strings.Cut(kv, "=")
		if upper := strings.ToUpper(name); value != "" && upper != name && known.has(upper) && p.env.Get(upper) == "" {
			p.fail(name, "is not read", "write it in capitals: "+upper)
		}
		if value == "" || !strings.HasPrefix(name, "BALENA") || known.has(name) {
			continue
		}
		if slices.Contains(staticTokens, name) {
			s.Warnings = append(s.Warnings, name+" is set where the injector runs, and is not used: "+
				"if it is an old token, remove it here and revoke it")
			continue
		}
		if why := strangers[name]; why != "" && p.env.Get(meantBy(why)) == "" {
			p.fail(name, "is not read", why)
			continue
		}
		if near := words.Nearest(name, names(keys)); near != "" && strings.HasPrefix(near, "BALENA_") && words.Distance(name, near) <= 2 &&
			p.env.Get(near) == "" {
			p.fail(name, "is not a variable that the injector knows", "did you mean "+near+"?")
		}
	}
}

// meantBy is the variable that an explanation of strangers names.
func meantBy(why string) string {
	for word := range strings.FieldsSeq(why) {
		if strings.HasPrefix(word, "BALENA_") {
			return word
		}
	}
	return ""
}
