package config

import (
	"slices"

	"github.com/balena-injector/injector/internal/words"
)

// Variable describes a variable for people.
type Variable struct {
	Name    string
	Default string // empty: none, or Usual says it
	Usual   string // the default in words, where it depends on something
	Does    string
	Other   string // another name for the same; empty: none
	File    string // the variable that names a file with the value; empty: none does. If it is Name, there is only that one
	PerKey  bool   // each key in INJECTOR_KEYS can have its own
}

// Group is a few variables that belong together.
type Group struct {
	Title     string
	Variables []Variable
}

// groups names each variable once, those first that everybody needs.
var groups = []struct {
	title string
	names []string
}{
	{"The account: a name with a password, or a session token, or a user key", []string{"BALENA_USERNAME", "BALENA_PASSWORD",
		"BALENA_TOTP_SECRET", "BALENA_SESSION_TOKEN", "BALENA_API_KEY", "BALENA_API_URL"}},
	{"What the app reads", []string{"INJECTOR_OUTPUT", "INJECTOR_OUTPUT_MODE", "INJECTOR_OUTPUT_OWNER", "INJECTOR_TEMPLATES",
		"INJECTOR_TEMPLATE_FILES", "INJECTOR_TEMPLATE_ENV", "INJECTOR_REQUIRE_TMPFS"}},
	{"The key", []string{"INJECTOR_TTL", "INJECTOR_MAX_TTL", "INJECTOR_OVERLAP", "INJECTOR_CHECK_INTERVAL", "INJECTOR_KIND",
		"INJECTOR_TARGET", "INJECTOR_NAME", "INJECTOR_DESCRIPTION", "INJECTOR_KEYS"}},
	{"Telling the app of another key", []string{"INJECTOR_NOTIFY_COMMAND", "INJECTOR_NOTIFY_SIGNAL", "INJECTOR_NOTIFY_URL",
		"INJECTOR_NOTIFY_TIMEOUT", "INJECTOR_NOTIFY_FIRST"}},
	{"The command of exec", []string{"INJECTOR_TOKEN_VARIABLES", "INJECTOR_ON_ROTATION", "INJECTOR_KILL_AFTER"}},
	{"Start, stop and restart", []string{"INJECTOR_INIT_TIMEOUT", "INJECTOR_SHUTDOWN_TIMEOUT", "INJECTOR_SHUTDOWN_DELAY",
		"INJECTOR_REVOKE_ON_EXIT", "INJECTOR_STATE_DIR", "INJECTOR_SESSION_CACHE"}},
	{"Watching and the network", []string{"INJECTOR_LISTEN", "INJECTOR_LOG_LEVEL", "INJECTOR_LOG_FORMAT", "INJECTOR_CA_FILE",
		"INJECTOR_ALLOW_HTTP", "INJECTOR_REQUESTS_PER_MINUTE"}},
}

// Groups lists what can be set.
func Groups() []Group {
	known := map[string]Variable{}
	for _, v := range described() {
		known[v.Name] = v
	}
	var list []Group
	for _, g := range groups {
		group := Group{Title: g.title}
		for _, name := range g.names {
			v, ok := known[name]
			if !ok {
				v = known[name+"_FILE"]
			}
			group.Variables = append(group.Variables, v)
		}
		list = append(list, group)
	}
	return list
}

// Variables lists what can be set, in the order of Groups.
func Variables() []Variable {
	var list []Variable
	for _, g := range Groups() {
		list = append(list, g.Variables...)
	}
	return list
}

// Names are all that a variable is called.
func (v Variable) Names() []string {
	list := []string{v.Name}
	if v.File != "" && v.File != v.Name {
		list = append(list, v.File)
	}
	if v.Other != "" {
		for _, name := range slices.Clone(list) {
			list = append(list, otherName(name))
		}
	}
	return list
}

// Credentials lists the names of the variables that hold a credential, without _FILE.
func Credentials() []string {
	var list []string
	for _, s := range secretVariables {
		list = append(list, s.name)
	}
	return list
}

// described is every variable, in no order for people.
func described() []Variable {
	var list []Variable
	for f := range fieldsOf[variables]() {
		list = append(list, variableOf(f.Tag.Get("env"), f.Tag.Get("default"), f.Tag.Get("usual"), false))
	}
	for f := range fieldsOf[keyVariables]() {
		list = append(list, variableOf(f.Tag.Get("env"), f.Tag.Get("default"), f.Tag.Get("usual"), true))
	}
	for _, s := range secretVariables {
		v := Variable{Name: s.name, Does: s.desc, PerKey: true, File: s.name + "_FILE"}
		if s.name == userKeyVariable {
			v.Name = v.File
		}
		v.Other = otherName(v.Name)
		list = append(list, v)
	}
	return list
}

func variableOf(name, byDefault, usual string, perKey bool) Variable {
	v := Variable{Name: name, Default: byDefault, Usual: usual, Does: descriptions[name], PerKey: perKey}
	if name == "BALENA_USERNAME" {
		v.Other = otherName(name)
	}
	return v
}

// Describe returns the variable that name is a name of, or else the name that is most like it.
func Describe(name string) (v Variable, like string, ok bool) {
	var all []string
	for _, v := range Variables() {
		if slices.Contains(v.Names(), name) {
			return v, "", true
		}
		all = append(all, v.Names()...)
	}
	return Variable{}, words.Nearest(name, all), false
}

// OfKey is the variable's name for one key of INJECTOR_KEYS.
func (v Variable) OfKey(key string) string { return scopeOf(Environ{}, key).own(v.Name) }
