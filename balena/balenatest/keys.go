package balenatest

import (
	"cmp"
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

// among returns the keys that q may match: those of the ids or names that it asks for, if it does.
func (s *shelf) among(q query) []*Key {
	switch {
	case q.id != 0:
		return s.withIDs([]int64{q.id})
	case q.ids != nil:
		return s.withIDs(q.ids)
	case q.names != nil:
		var found []*Key
		for _, name := range unique(q.names) {
			found = append(found, s.byName[name]...)
		}
		slices.SortFunc(found, func(a, b *Key) int { return cmp.Compare(a.ID, b.ID) })
		return found
	}
	at, _ := slices.BinarySearchFunc(s.all, q.above+1, byID)
	return s.all[at:]
}

func byID(k *Key, id int64) int { return cmp.Compare(k.ID, id) }

// withIDs returns the keys of those ids, in their order.
func (s *shelf) withIDs(ids []int64) []*Key {
	var found []*Key
	for _, id := range unique(ids) {
		if at, ok := slices.BinarySearchFunc(s.all, id, byID); ok {
			found = append(found, s.all[at])
		}
	}
	return found
}

// unique returns the values sorted, each once.
func unique[T cmp.Ordered](values []T) []T {
	return slices.Compact(slices.Sorted(slices.Values(values)))
}

// remove removes keys and returns how many there were.
func (s *shelf) remove(gone []*Key) int {
	set := make(map[*Key]bool, len(gone))
	for _, k := range gone {
		set[k] = true
		delete(s.bySecret, k.Secret)
		same := func(other *Key) bool { return other == k }
		if s.byName[k.Name] = slices.DeleteFunc(s.byName[k.Name], same); len(s.byName[k.Name]) == 0 {
			delete(s.byName, k.Name)
		}
	}
	n := len(gone)
	s.all = slices.DeleteFunc(s.all, func(k *Key) bool { return set[k] })
	return n
}
