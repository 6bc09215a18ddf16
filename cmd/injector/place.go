package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
)

// place finds the place that a command which only asks is about. The rest of the configuration does not matter: a
// template that is wrong must not keep anybody from asking how things are.
func (in *invocation) place() (place, error) {
	plain, err := placeOf(in.environ, false)
	if err != nil || plain.explicit || exists(plain.dir) {
		return plain, err
	}
	// Nothing says where: exec has chosen a place by itself, with this environment or with another one.
	child, err := placeOf(in.environ, true)
	if err != nil || exists(child.dir) {
		return child, err
	}
	return plain, nil
}

// placeToShow is place for a person who only looks: if nothing is there, an exec of another environment, if it is the
// only one.
func (in *invocation) placeToShow() (place, error) {
	at, err := in.place()
	if err != nil || at.explicit || exists(at.dir) {
		return at, err
	}
	if others := usedPlaces(); len(others) == 1 {
		at.dir = others[0]
	}
	return at, nil
}

// place is where the state lies, and whether the configuration says so.
type place struct {
	dir      string
	explicit bool
	outputs  []string // that the configuration names; empty: it leaves them to the default, or has none
}

// placeOf finds the place without looking at anything else.
func placeOf(environ []string, supervising bool) (place, error) {
	if _, err := readVariables(); err != nil {
		return place{}, err
	}
	p := &parser{withoutFiles: true}
	s := p.all(environ, supervising)
	for _, q := range p.problems { // elsewhere it would look for what cannot be there
		if q.Variable == "INJECTOR_STATE_DIR" || q.Variable == "INJECTOR_OUTPUT" {
			return place{}, configError{q}
		}
	}
	at := place{explicit: os.Getenv("INJECTOR_STATE_DIR") != ""}
	for _, k := range s.Keys {
		of := scope{k.Key}
		if k.Key != "" || of.get("INJECTOR_OUTPUT") != "" || of.get("INJECTOR_TEMPLATES") != "" {
			at.explicit, at.outputs = true, append(at.outputs, k.paths()...)
		}
	}
	if s.StateDir == "" {
		s.StateDir = filepath.Join(filepath.Dir(defaultOutput), ".injector")
	}
	at.dir = s.StateDir
	return at, nil
}

// supervisedHere reports whether the state that is to be dealt with is that of an exec.
func (in *invocation) supervisedHere() bool {
	at, err := in.place()
	if err != nil {
		return false
	}
	plain, err := placeOf(in.environ, false)
	return err == nil && at.dir != plain.dir
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// execStateDir is where exec keeps its state if nothing else is said: in memory in every container,
// and for each user and configuration another, since the containers of a pod share it.
func execStateDir(s *settings) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%q", s.API.URL)
	for _, k := range s.Keys {
		_, _ = fmt.Fprintf(h, "%q %q %q %q %q %q", k.Key, k.Account.Login, k.Kind, k.Target.String(), k.Prefix, k.Variables)
	}
	return fmt.Sprintf("%s%x", execPlace(), h.Sum(nil)[:4])
}

// execPlace begins the paths of all places that exec chooses for this user.
func execPlace() string { return fmt.Sprintf("/dev/shm/injector-%d-", os.Getuid()) }

// leftPlaces are the places that execs of one configuration have chosen by themselves, beside each other, and that nobody
// uses. It returns none for a place that somebody has configured.
func leftPlaces(dir string) (list []string) {
	if os.Getenv("INJECTOR_STATE_DIR") != "" || !strings.HasPrefix(dir, execPlace()) {
		return nil
	}
	for n := 1; n <= mostExecs; n++ {
		if rest, err := agent.Look(nthPlace(dir, n)); err == nil && !rest.Held {
			list = append(list, nthPlace(dir, n))
		}
	}
	return list
}

// nthPlace is where the nth exec of one configuration has its state.
func nthPlace(dir string, n int) string {
	if n == 1 {
		return dir
	}
	return fmt.Sprintf("%s-%d", dir, n)
}

// vacate removes the place that exec has chosen by itself, if nothing in it matters to another start: it would lie in
// memory for ever, and a later exec would go on counting generations.
func (a *app) vacate() {
	if os.Getenv("INJECTOR_STATE_DIR") != "" || !strings.HasPrefix(a.state.Path(), execPlace()) {
		return
	}
	if err := a.state.Vacate(balena.RefusalsMatter); err != nil {
		a.log.Debug("the state directory stays", "directory", a.state.Path(), "because", err)
	}
}

// mostExecs is how many execs of one configuration may run side by side without saying where.
const mostExecs = 16

// freePlace finds a place where no other exec works, if the place is one that exec chooses.
func freePlace(dir string) string {
	if os.Getenv("INJECTOR_STATE_DIR") != "" || !strings.HasPrefix(dir, execPlace()) {
		return dir
	}
	for n := 1; n <= mostExecs; n++ {
		place := nthPlace(dir, n)
		state, err := agent.OpenStateDir(place)
		if err != nil {
			continue // somebody else's
		}
		err = state.TryLock()
		_ = state.Close()
		if err == nil {
			return place
		}
	}
	return dir // the lock tells what is wrong
}

// execPlaces are the state directories that execs of this user have chosen by themselves and not left yet.
func execPlaces() []string {
	list, _ := filepath.Glob(execPlace() + "*")
	return list
}

// mostShown is how many places an error names.
const mostShown = 3

// usedPlaces are the execPlaces in which an exec runs, or has left a key.
func usedPlaces() []string {
	used := slices.DeleteFunc(execPlaces(), func(dir string) bool {
		rest, err := agent.Look(dir)
		return err != nil || !rest.Held && !slices.ContainsFunc(rest.Keys, func(k agent.RestingKey) bool { return k.Live > 0 })
	})
	if more := len(used) - mostShown; more > 0 {
		used = append(used[:mostShown:mostShown], fmt.Sprintf("and %d more", more))
	}
	return used
}
