package balenatest

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// query is the part of OData that balena's clients use on these resources.
type query struct {
	id       int64    // in parentheses; 0: none
	ids      []int64  // those that the filter asks for; nil: it does not say
	names    []string // likewise
	above    int64    // all ids that it asks for are greater
	selected []string // nil: all
	expanded []string // what is named here is there as a whole
	conds    []func(fields) bool
	orderBy  string
	desc     bool
	top      int // -1: no limit
	skip     int
}

// parseQuery reads a query string and the id in parentheses before it, which may be empty. It reports whether it is one.
func parseQuery(raw, id string) (query, bool) {
	q := query{top: -1}
	if id != "" {
		n, err := strconv.ParseInt(id, 10, 64)
		if err != nil {
			return q, false
		}
		q.id = n
		q.conds = append(q.conds, func(f fields) bool { return f["id"] == n })
	}
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		value, err := url.PathUnescape(value) // a plus sign is not a blank
		if err != nil || !q.take(name, value) {
			return q, false
		}
	}
	if q.selected != nil {
		q.selected = append(q.selected, q.expanded...)
	}
	return q, true
}

// take reads one parameter, and reports whether it is well formed.
func (q *query) take(name, value string) bool {
	var err error
	switch name {
	case "$select":
		q.selected = strings.Split(value, ",")
	case "$top":
		q.top, err = strconv.Atoi(value)
	case "$skip":
		q.skip, err = strconv.Atoi(value)
	case "$expand":
		for _, m := range expandForm.FindAllStringSubmatch(value, -1) {
			q.expanded = append(q.expanded, m[1])
		}
	case "$orderby":
		var dir string
		q.orderBy, dir, _ = strings.Cut(value, " ")
		q.desc = dir == "desc"
	case "$filter":
		var c condition
		if c, err = parseFilter(value); err == nil {
			q.conds = append(q.conds, c.holds)
			q.ids, q.names, q.above = c.ids, c.names, c.above
		}
	}
	return err == nil
}

func (q query) match(f fields) bool {
	for _, cond := range q.conds {
		if !cond(f) {
			return false
		}
	}
	return true
}

// inOrder reports whether it asks for the first rows in the order of their ids.
func (q query) inOrder() bool { return q.orderBy == "id" && !q.desc && q.top >= 0 }

// run returns what the query asks for of the rows, which are in the order of their ids.
func (q query) run(rows []fields) []fields {
	found := []fields{}
	for _, row := range rows {
		if q.match(row) {
			found = append(found, row)
		}
	}
	if q.orderBy != "" {
		slices.SortStableFunc(found, func(a, b fields) int { return order(a[q.orderBy], b[q.orderBy]) })
		if q.desc {
			slices.Reverse(found)
		}
	}
	found = found[min(q.skip, len(found)):]
	if q.top >= 0 && len(found) > q.top {
		found = found[:q.top]
	}
	for i, row := range found {
		if q.selected != nil {
			cut := fields{}
			for _, name := range q.selected {
				if v, ok := row[name]; ok {
					cut[name] = v
				}
			}
			found[i] = cut
		}
	}
	return found
}

// order orders two values of a column.
func order(a, b any) int {
	switch a := a.(type) {
	case int64:
		b, _ := b.(int64)
		return cmp.Compare(a, b)
	case string:
		b, _ := b.(string)
		return cmp.Compare(a, b)
	}
	return 0
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

var expandForm = regexp.MustCompile(`(\w+)(?:\([^)]*\))?`)
