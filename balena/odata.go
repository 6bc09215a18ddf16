package balena

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/balena-injector/injector/key"
)

// Every path of the resource API is built here. A DELETE or PATCH has two constructors: keyPath takes a row's id, and
// keysPath takes ids and their names' prefix. Without them the server would change or delete every key of the account,
// and answer 200.

// rowID is the id of one row, known to be positive.
type rowID struct{ n int64 }

// newRowID refuses what is not an id.
func newRowID(id int64) (rowID, error) {
	if id <= 0 {
		return rowID{}, fmt.Errorf("%d is not the id of a key", id)
	}
	return rowID{id}, nil
}

// keyPath is the path of one key. The zero rowID gives a path that names no route.
func keyPath(id rowID) string {
	if id.n <= 0 {
		return "/no-such-key"
	}
	return "/v7/api_key(" + strconv.FormatInt(id.n, 10) + ")"
}

// query is the path of a resource's rows, for reading.
func query(resource, selected, filter, more string) string {
	return "/v7/" + resource + "?$select=" + selected + "&$filter=" + escape(filter) + more
}

// literal writes a string the way a filter wants it.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// escape percent-encodes a filter just as far as the recorded requests do: blanks and everything
// that means something to a URL, but not what means something to OData. A plus sign is not a blank
// there.
func escape(filter string) string {
	var out strings.Builder
	for i := range len(filter) {
		c := filter[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.~'(),/:*", c) >= 0 {
			out.WriteByte(c)
		} else {
			_, _ = fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}

const (
	// mostIDs and mostNames are how many keys one request is about at most: a request line of 15 kB is answered, and one
	// of 24 kB is not.
	mostIDs   = 200
	mostNames = 100
)

// chosen are the keys that one request is about: ids that were read, and the prefix that their names have. It has one
// constructor, so that a request for all keys of the account cannot be built. A proxy that loses the query cannot be
// ruled out here: see batches.
type chosen struct {
	ids    []int64
	prefix string
}

// choose refuses what names no key, or more than a request may.
func choose(ids []int64, prefix string) (chosen, error) {
	if err := key.CheckPrefix(prefix); err != nil {
		return chosen{}, fmt.Errorf("the prefix of the keys' names %w", err)
	}
	if len(ids) == 0 || len(ids) > mostIDs {
		return chosen{}, fmt.Errorf("%d ids for one request", len(ids))
	}
	for _, id := range ids {
		if _, err := newRowID(id); err != nil {
			return chosen{}, err
		}
	}
	return chosen{ids, prefix}, nil
}

// filter is the filter that chooses them, and nothing that has not both an id and the prefix.
func (c chosen) filter() string {
	var list strings.Builder
	for n, id := range c.ids {
		if n > 0 {
			list.WriteByte(',')
		}
		list.WriteString(strconv.FormatInt(id, 10))
	}
	return "id in (" + list.String() + ") and startswith(name," + literal(c.prefix+"-") + ")"
}

// keysPath is the path that changes the chosen keys; more is a further condition, which may be empty. The zero chosen
// gives a path that names no route.
func keysPath(c chosen, more string) string {
	if len(c.ids) == 0 || c.prefix == "" {
		return "/no-such-keys"
	}
	return "/v7/api_key?$filter=" + escape(c.filter()+more)
}
