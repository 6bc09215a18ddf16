package config

import (
	"reflect"
	"slices"
	"strings"

	"github.com/balena-injector/injector/internal/words"
)

// variables is every setting that is not a secret and not one key's, as text; settings.go gives it a meaning.
type variables struct {
	APIURL          string `env:"BALENA_API_URL" default:"https://api.balena-cloud.com"`
	Keys            string `env:"INJECTOR_KEYS" usual:"one key without a name"`
	StateDir        string `env:"INJECTOR_STATE_DIR" usual:".injector beside the first output"`
	SessionCache    string `env:"INJECTOR_SESSION_CACHE" usual:"none"`
	RequireTmpfs    string `env:"INJECTOR_REQUIRE_TMPFS" default:"true"`
	TemplateFiles   string `env:"INJECTOR_TEMPLATE_FILES" usual:"none"`
	TemplateEnv     string `env:"INJECTOR_TEMPLATE_ENV" usual:"none"`
	OnRotation      string `env:"INJECTOR_ON_ROTATION" default:"restart"`
	KillAfter       string `env:"INJECTOR_KILL_AFTER" default:"3s"`
	InitTimeout     string `env:"INJECTOR_INIT_TIMEOUT" default:"2m"`
	ShutdownDelay   string `env:"INJECTOR_SHUTDOWN_DELAY" default:"0s"`
	ShutdownTimeout string `env:"INJECTOR_SHUTDOWN_TIMEOUT" default:"7s"`
	RevokeOnExit    string `env:"INJECTOR_REVOKE_ON_EXIT" default:"true"`
	Listen          string `env:"INJECTOR_LISTEN" usual:"off"`
	CAFile          string `env:"INJECTOR_CA_FILE" usual:"none"`
	AllowHTTP       string `env:"INJECTOR_ALLOW_HTTP" default:"false"`
	PerMinute       string `env:"INJECTOR_REQUESTS_PER_MINUTE" default:"300"`
	LogLevel        string `env:"INJECTOR_LOG_LEVEL" default:"info"`
	LogFormat       string `env:"INJECTOR_LOG_FORMAT" default:"text"`
}

// keyVariables is every setting of one key that is not a secret.
type keyVariables struct {
	Username       string `env:"BALENA_USERNAME"`
	Kind           string `env:"INJECTOR_KIND" default:"user"`
	Target         string `env:"INJECTOR_TARGET"`
	Name           string `env:"INJECTOR_NAME" default:"injector"`
	Description    string `env:"INJECTOR_DESCRIPTION"`
	TTL            string `env:"INJECTOR_TTL" default:"1h"`
	MaxTTL         string `env:"INJECTOR_MAX_TTL" usual:"24h, or TTL if longer; 0 if the credential cannot mint again"`
	Overlap        string `env:"INJECTOR_OVERLAP" usual:"1m, or a sixth of TTL if shorter"`
	CheckInterval  string `env:"INJECTOR_CHECK_INTERVAL" default:"5m"`
	Output         string `env:"INJECTOR_OUTPUT" usual:"/secrets/balena-token; none with templates or under exec"`
	OutputMode     string `env:"INJECTOR_OUTPUT_MODE" default:"0440"`
	OutputOwner    string `env:"INJECTOR_OUTPUT_OWNER" usual:"who runs the injector"`
	Templates      string `env:"INJECTOR_TEMPLATES" usual:"none"`
	TokenVariables string `env:"INJECTOR_TOKEN_VARIABLES" usual:"BALENA_TOKEN"`
	NotifyCommand  string `env:"INJECTOR_NOTIFY_COMMAND" usual:"none"`
	NotifySignal   string `env:"INJECTOR_NOTIFY_SIGNAL" usual:"none"`
	NotifyURL      string `env:"INJECTOR_NOTIFY_URL" usual:"none"`
	NotifyTimeout  string `env:"INJECTOR_NOTIFY_TIMEOUT" default:"10s"`
	NotifyFirst    string `env:"INJECTOR_NOTIFY_FIRST" default:"false"`
}

// secretVariables are the credentials. Each may be given as NAME or as NAME_FILE, but for the user key, which has a file
// only.
var secretVariables = []struct{ name, desc string }{
	{"BALENA_PASSWORD", "the password"},
	{"BALENA_TOTP_SECRET", "the two-factor secret (base32 or otpauth://), if the account has one"},
	{"BALENA_SESSION_TOKEN", "a session token instead of name and password"},
	{"BALENA_API_KEY", "a user key instead of both, as a file only; makes fleet and device keys"},
}

// userKeyVariable has no variant without a file: an everlasting key in a variable is what this
// program replaces.
const userKeyVariable = "BALENA_API_KEY"

// names lists every variable that has a meaning here, for keys of those names.
func names(keys []string) []string {
	var list []string
	for f := range fieldsOf[variables]() {
		list = append(list, f.Tag.Get("env"))
	}
	for f := range fieldsOf[keyVariables]() {
		list = append(list, f.Tag.Get("env"))
	}
	for _, name := range keys {
		if name != "" {
			list = append(list, ownNames(name)...)
		}
	}
	for _, s := range secretVariables {
		if s.name != userKeyVariable {
			list = append(list, s.name, otherName(s.name))
		}
		list = append(list, s.name+"_FILE", otherName(s.name+"_FILE"))
	}
	return append(list, otherName("BALENA_USERNAME"))
}

// known tells which names have a meaning here, for keys of some names: thousands of keys have each a name of their own
// for twenty variables.
type known struct {
	shared map[string]bool // INJECTOR_TTL
	rests  map[string]bool // TTL, of what a key may have for itself
	keys   map[string]bool
}

func newKnown(keys []string) known {
	k := known{shared: setOf(names(nil)), rests: map[string]bool{}, keys: setOf(keys)}
	for _, own := range ownNames("x") {
		k.rests[strings.TrimPrefix(own, "INJECTOR_X_")] = true
	}
	return k
}

// has is names(keys) as a question.
func (k known) has(name string) bool {
	if k.shared[name] {
		return true
	}
	key, rest, ok := strings.Cut(strings.TrimPrefix(name, "INJECTOR_"), "_")
	return ok && strings.HasPrefix(name, "INJECTOR_") && k.rests[rest] && key == strings.ToUpper(key) && k.keys[strings.ToLower(key)]
}

// ambiguous returns a variable of a key of that name which has a meaning of its own, or which Kubernetes might set.
func (k known) ambiguous(name string) string {
	prefix := "INJECTOR_" + strings.ToUpper(name) + "_"
	for variable := range k.shared {
		if rest, ok := strings.CutPrefix(variable, prefix); ok && k.rests[rest] {
			return variable
		}
	}
	if name == "max" || name == "port" || name == "service" || serviceLinks().MatchString(prefix) {
		return prefix + "…"
	}
	return ""
}

func setOf(list []string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, name := range list {
		set[name] = true
	}
	return set
}

func fieldsOf[T any]() func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		t := reflect.TypeFor[T]()
		for field := range t.Fields() {
			if !yield(field) {
				return
			}
		}
	}
}

// OtherNames is said once, instead of in every variable's description.
const OtherNames = "each credential, the user name among them, may also be set as INJECTOR_… instead of BALENA_…, " +
	"such as INJECTOR_PASSWORD_FILE: balena's dashboard reserves names that begin with BALENA_"

// serviceLinks are the variables that Kubernetes makes for a service called injector-something.
var serviceLinks = form(`^INJECTOR_(.+_)?(SERVICE_(HOST|PORT)|PORT)(_|$)`)

// unknownVariables returns a problem for each INJECTOR_ variable without a meaning.
func (p *parser) unknownVariables(keys []string) []Problem {
	known := newKnown(keys)
	var found []Problem
	for _, kv := range p.env.entries() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "INJECTOR_") || known.has(name) || serviceLinks().MatchString(name) {
			continue
		}
		fix := "remove it; `injector help` lists all names"
		near, stranger := words.Nearest(name, names(keys)), unnamedKey(name, keys)
		switch {
		case stranger != "" && (near == "" || len(stranger) == 1): // a letter is near every other letter
			fix = "INJECTOR_KEYS does not name a key " + stranger
		case strangers["BALENA_"+strings.TrimPrefix(name, "INJECTOR_")] != "":
			fix = strangers["BALENA_"+strings.TrimPrefix(name, "INJECTOR_")]
		case near != "":
			fix = "did you mean " + near + "?"
		}
		found = append(found, Problem{name, "is not a variable that the injector knows", fix})
	}
	slices.SortFunc(found, func(a, b Problem) int { return strings.Compare(a.Variable, b.Variable) })
	return found
}

// unnamedKey returns the key whose variable this would be if INJECTOR_KEYS named it, or "".
func unnamedKey(variable string, keys []string) string {
	name, _, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(variable, "INJECTOR_")), "_")
	if len(keys) > 0 && keys[0] != "" && keyNameForm().MatchString(name) && slices.Contains(ownNames(name), variable) {
		return name
	}
	return ""
}
