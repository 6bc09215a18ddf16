package sidecar

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/statedir"
)

// LeftPlaces are the places that execs of one configuration have chosen by themselves, beside each other, and that nobody
// uses. It returns none for a place that somebody has configured.
func LeftPlaces(s config.Settings) (list []string) {
	dir := s.StateDir
	if !ownPlace(s) {
		return nil
	}
	for n := 1; n <= MostExecs; n++ {
		if left, err := statedir.Look(nthPlace(dir, n)); err == nil && !left.Held {
			list = append(list, nthPlace(dir, n))
		}
	}
	return list
}

// ownPlace reports whether exec has chosen the state directory by itself.
func ownPlace(s config.Settings) bool {
	return s.Environ.Get("INJECTOR_STATE_DIR") == "" && strings.HasPrefix(s.StateDir, config.ExecPlace())
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
func (a *App) vacate() {
	if !ownPlace(a.settings) {
		return
	}
	if err := a.state.Vacate(journalMatters, refusalsMatter); err != nil {
		a.log.Debug("the state directory stays", "directory", a.state.Path(), "because", err)
	}
}

// MostExecs is how many execs of one configuration may run side by side without saying where.
const MostExecs = 16

// freePlace finds a place where no other exec works, if the place is one that exec chooses.
func freePlace(s config.Settings) string {
	dir := s.StateDir
	if !ownPlace(s) {
		return dir
	}
	for n := 1; n <= MostExecs; n++ {
		place := nthPlace(dir, n)
		state, err := statedir.Open(place)
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

// ExecPlaces are the state directories that execs of this user have chosen by themselves and not left yet.
func ExecPlaces() []string {
	list, _ := filepath.Glob(config.ExecPlace() + "*")
	return list
}

// mostShown is how many places an error names.
const mostShown = 3

// UsedPlaces are the ExecPlaces in which an exec runs, or has left a key.
func UsedPlaces() []string {
	used := slices.DeleteFunc(ExecPlaces(), func(dir string) bool {
		rest, err := lookAt(dir)
		return err != nil || !rest.held && !slices.ContainsFunc(rest.keys, func(k restingKey) bool { return k.Live > 0 })
	})
	if more := len(used) - mostShown; more > 0 {
		used = append(used[:mostShown:mostShown], fmt.Sprintf("and %d more", more))
	}
	return used
}

// journalMatters reports whether a later start goes on with a journal.
func journalMatters(data []byte) bool {
	left, err := agent.ReadJournal(data)
	return err != nil || left.Matters
}

// refusalsMatter reports whether what is noted of refused logins still counts.
func refusalsMatter(data []byte) bool { return balena.RefusalsMatter(data, time.Now()) }
