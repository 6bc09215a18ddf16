package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// scope reads the variables of one key of INJECTOR_KEYS, and the shared ones for what that has not. An empty key means that
// INJECTOR_KEYS is not set: there is one key without a name.
type scope struct {
	env    Environ
	key    string
	prefix string // of the key's own variables
}

func scopeOf(env Environ, key string) scope {
	s := scope{env: env, key: key}
	if key != "" {
		s.prefix = "INJECTOR_" + strings.ToUpper(key) + "_"
	}
	return s
}

// own is the name of a key's own variable: INJECTOR_DEPLOY_TTL for INJECTOR_TTL, and
// INJECTOR_DEPLOY_PASSWORD_FILE for BALENA_PASSWORD_FILE. For the only key it is the name itself, or, of a
// credential that is set by its other name, that one.
func (s scope) own(variable string) string {
	_, rest, _ := strings.Cut(variable, "_")
	if s.key != "" {
		return s.prefix + rest
	}
	if other := otherName(variable); other != "" && s.env.Get(variable) == "" && s.env.Get(other) != "" {
		return other
	}
	return variable
}

// otherName is INJECTOR_PASSWORD for BALENA_PASSWORD and so on, "" for what is not a credential: balena's own
// dashboard reserves names that begin with BALENA_, so a device needs others.
func otherName(variable string) string {
	rest, ok := strings.CutPrefix(variable, "BALENA_")
	if !ok || rest == "API_URL" {
		return ""
	}
	return "INJECTOR_" + rest
}

// named is the name that a variable is set with, for errors.
func (s scope) named(variable string) string {
	if own := s.own(variable); s.env.Get(own) != "" {
		return own
	}
	return variable
}

// notShared are the variables that a key of several does not take from the shared ones: two keys cannot write one file or
// fill one variable.
var notShared = []string{"INJECTOR_OUTPUT", "INJECTOR_TEMPLATES", "INJECTOR_TOKEN_VARIABLES"}

// notForAll tells of variables that no key of several would take.
func (p *parser) notForAll(keys []string) {
	for _, variable := range notShared {
		if len(keys) > 0 && keys[0] != "" && p.env.Get(variable) != "" {
			p.fail(variable, "is set, and with INJECTOR_KEYS each key has its own", "set "+p.of(keys[0]).own(variable)+" and so on")
		}
	}
}

// get returns a variable's text, empty if it is not set.
func (s scope) get(variable string) string {
	text := strings.TrimSpace(s.env.Get(s.own(variable)))
	if text == "" && !(s.key != "" && slices.Contains(notShared, variable)) {
		text = strings.TrimSpace(s.env.Get(variable))
	}
	return text
}

// read reads the variables that the fields of T name in their tags. One that is empty counts as unset, as Compose's
// ${NAME:-} writes it.
func read[T any](s scope) T {
	var v T
	fields := reflect.ValueOf(&v).Elem()
	for i := range fields.NumField() {
		tag := fields.Type().Field(i).Tag
		text := s.get(tag.Get("env"))
		if text == "" {
			text = tag.Get("default")
		}
		fields.Field(i).SetString(text)
	}
	return v
}

// of is the scope of a key; of the only one if key is empty.
func (p *parser) of(key string) scope { return scopeOf(p.env, key) }

var keyNameForm = form(`^[a-z][a-z0-9]{0,19}$`)

// keyNames reads INJECTOR_KEYS. Without it there is one key, without a name.
func (p *parser) keyNames(text string) []string {
	if text == "" {
		return []string{""}
	}
	var list []string
	seen, known := map[string]bool{}, newKnown(nil)
	for i, name := range splitList(text) {
		switch {
		case !keyNameForm().MatchString(name):
			p.fail("INJECTOR_KEYS", fmt.Sprintf("has an entry %d that cannot be a key's name", i+1),
				"names are up to 20 lower case letters and digits, the first a letter")
		case seen[name]:
			p.fail("INJECTOR_KEYS", "names "+name+" twice", "")
		case known.ambiguous(name) != "":
			p.fail("INJECTOR_KEYS", "names a key "+name+", whose variable "+known.ambiguous(name)+" means something else",
				"give it another name")
		default:
			list, seen[name] = append(list, name), true
		}
	}
	if len(list) == 0 && len(p.problems) == 0 {
		p.fail("INJECTOR_KEYS", "names no key", "give names such as deploy,fleet, or unset it")
	}
	return list
}

// ownNames lists the variables that a key of that name may have.
func ownNames(name string) []string {
	s := scopeOf(Environ{}, name)
	var list []string
	for f := range fieldsOf[keyVariables]() {
		list = append(list, s.own(f.Tag.Get("env")))
	}
	list = append(list, s.own("BALENA_USERNAME"))
	for _, secret := range secretVariables {
		if secret.name != userKeyVariable {
			list = append(list, s.own(secret.name))
		}
		list = append(list, s.own(secret.name+"_FILE"))
	}
	return list
}
