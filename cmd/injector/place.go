package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/balena-injector/injector/agent"
)

// stateDirOf returns the state directory for commands that only ask. The rest of the configuration
// does not matter: a template that is wrong must not keep anybody from asking how things are.
func stateDirOf(environ []string) (string, error) {
	at, err := placeFor(environ)
	return at.dir, err
}

// placeFor finds the place that a command which only asks is about.
func placeFor(environ []string) (place, error) {
	plain, err := placeOf(environ, false)
	if err != nil || plain.explicit || exists(plain.dir) {
		return plain, err
	}
	// Nothing says where: exec has chosen a place by itself.
	child, err := placeOf(environ, true)
	if err != nil || exists(child.dir) {
		return child, err
	}
	return plain, nil
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

// supervisedHere tells whether the state that is to be dealt with is that of an exec.
func (in *invocation) supervisedHere() bool {
	dir, err := stateDirOf(in.environ)
	if err != nil {
		return false
	}
	plain, err := placeOf(in.environ, false)
	return err == nil && dir != plain.dir
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

// mostExecs is how many execs of one configuration may run side by side without saying where.
const mostExecs = 16

// freePlace finds a place where no other exec works, if the place is one that exec chooses.
func freePlace(dir string) string {
	if os.Getenv("INJECTOR_STATE_DIR") != "" || !strings.HasPrefix(dir, execPlace()) {
		return dir
	}
	for n := 1; n <= mostExecs; n++ {
		place := dir
		if n > 1 {
			place = fmt.Sprintf("%s-%d", dir, n)
		}
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
