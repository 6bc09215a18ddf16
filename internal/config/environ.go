package config

import (
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Environ is the environment of a process. The zero value has no variables; make another one with NewEnviron. It never
// changes. It may hold passwords, and so nothing prints it.
type Environ struct{ of *variablesOf }

// Format prints [environment] for every verb and flag.
func (e Environ) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[environment]") }

type variablesOf struct {
	list   []string
	values map[string]string
}

// NewEnviron returns the environment that list describes, each entry being NAME=VALUE as os.Environ returns them. Of
// several entries for one name the first one counts, as it does for os.Getenv.
func NewEnviron(list []string) Environ {
	v := &variablesOf{slices.Clone(list), make(map[string]string, len(list))}
	for _, entry := range list {
		name, value, _ := strings.Cut(entry, "=")
		if _, twice := v.values[name]; !twice {
			v.values[name] = value
		}
	}
	return Environ{v}
}

// Get returns the value of a variable, empty if it is not set.
func (e Environ) Get(name string) string {
	value, _ := e.Lookup(name)
	return value
}

// Lookup returns the value of a variable, and whether it is set.
func (e Environ) Lookup(name string) (string, bool) {
	if e.of == nil {
		return "", false
	}
	value, ok := e.of.values[name]
	return value, ok
}

// entries returns all of it. The caller must not change the list.
func (e Environ) entries() []string {
	if e.of == nil {
		return nil
	}
	return e.of.list
}

// ForChild returns the entries that a command of ours inherits: all but the injector's own.
func (e Environ) ForChild() []string {
	return slices.DeleteFunc(slices.Clone(e.entries()), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return ours(name)
	})
}

// lookPath returns an error if there is no such program in the PATH of that environment.
func (e Environ) lookPath(program string) error {
	if strings.Contains(program, "/") {
		_, err := exec.LookPath(program)
		return err
	}
	for _, dir := range filepath.SplitList(e.Get("PATH")) {
		if _, err := exec.LookPath(filepath.Join(dir, program)); err == nil && filepath.IsAbs(dir) {
			return nil
		}
	}
	return exec.ErrNotFound
}

// Secrets returns the names of the variables that hold a credential of these keys themselves, to be taken out of the
// process's environment once they are read. It leaves out BALENA_API_KEY, which balena's own platform sets.
func (s Settings) Secrets() []string {
	var names []string
	for _, k := range append([]Key{{}}, s.Keys...) {
		for _, secret := range secretVariables {
			if secret.name != userKeyVariable {
				names = append(names, secret.name, otherName(secret.name), scopeOf(s.Environ, k.Name).own(secret.name))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// OwnName is the name of a key's own variable: INJECTOR_DEPLOY_TTL for INJECTOR_TTL of the key deploy, and
// INJECTOR_DEPLOY_PASSWORD_FILE for BALENA_PASSWORD_FILE. For the only key, whose name is empty, it is the name itself.
func (e Environ) OwnName(key, variable string) string { return scopeOf(e, key).own(variable) }

// SetName is OwnName for what is set under that name, else the shared name.
func (e Environ) SetName(key, variable string) string { return scopeOf(e, key).named(variable) }
