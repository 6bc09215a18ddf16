package balena

import (
	"fmt"
	"strconv"
	"strings"
)

// Every path of the resource API is built here. A DELETE or PATCH has one constructor, keyPath,
// and that takes a row's id: without one the server would change or delete every key of the
// account, and answer 200.

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
