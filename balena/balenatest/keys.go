package balenatest

import (
	"slices"
	"time"

	"github.com/balena-injector/injector/key"
)

// Key is an API key as the server holds it.
type Key struct {
	ID          int64
	Name        string
	Description string
	Secret      string
	Expiry      time.Time // zero: never expires
	Created     time.Time
	Kind        key.Kind
	Target      int64 // the user, fleet or device
	Owner       int64 // the user whom it is listed for
}

// shelf holds the keys of a server, found by what requests name them with: ten thousand agents
// share one server in a test.
type shelf struct {
	all      []*Key // in the order of their ids
	bySecret map[string]*Key
	byName   map[string][]*Key
}

func newShelf() shelf { return shelf{bySecret: map[string]*Key{}, byName: map[string][]*Key{}} }

func (s *shelf) add(k *Key) {
	s.all = append(s.all, k)
	s.bySecret[k.Secret] = k
	s.byName[k.Name] = append(s.byName[k.Name], k)
}

// among returns the keys that q may match: those of the id or name that it asks for, if it does.
func (s *shelf) among(q query) []*Key {
	switch {
	case q.id != 0:
		at, found := slices.BinarySearchFunc(s.all, q.id, func(k *Key, id int64) int { return int(k.ID - id) })
		if !found {
			return nil
		}
		return s.all[at : at+1]
	case q.name != "":
		return s.byName[q.name]
	}
	return s.all
}

// remove removes keys and returns how many there were.
func (s *shelf) remove(gone []*Key) int {
	for _, k := range gone {
		delete(s.bySecret, k.Secret)
		same := func(other *Key) bool { return other == k }
		s.all = slices.DeleteFunc(s.all, same)
		if s.byName[k.Name] = slices.DeleteFunc(s.byName[k.Name], same); len(s.byName[k.Name]) == 0 {
			delete(s.byName, k.Name)
		}
	}
	return len(gone)
}
