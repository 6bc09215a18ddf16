package balenatest

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// query is the part of OData that balena's clients use on these resources.
type query struct {
	id       int64  // in parentheses; 0: none
	name     string // asked for by "name eq"; it is among conds, too
	selected []string
	expanded []string // what is named here is there as a whole
	conds    []func(fields) bool
	orderBy  string
	desc     bool
	top      int
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
	case "$expand":
		for _, m := range expandForm.FindAllStringSubmatch(value, -1) {
			q.expanded = append(q.expanded, m[1])
		}
	case "$orderby":
		var dir string
		q.orderBy, dir, _ = strings.Cut(value, " ")
		q.desc = dir == "desc"
	case "$filter":
		return q.filter(value)
	}
	return err == nil
}

// filter reads the conditions of a filter, and reports whether they are well formed.
func (q *query) filter(value string) bool {
	for _, cond := range splitAnd(value) {
		match, ok := parseCond(cond)
		if !ok {
			return false
		}
		q.conds = append(q.conds, match)
		if m := eqForm.FindStringSubmatch(cond); m != nil && m[1] == "name" {
			q.name = unquote(m[2])
		}
	}
	return true
}

// splitAnd splits a filter at its ands, but not inside of strings.
func splitAnd(filter string) []string {
	var parts []string
	quoted, start := false, 0
	for i := range filter {
		if filter[i] == '\'' {
			quoted = !quoted
		}
		if !quoted && strings.HasPrefix(filter[i:], " and ") {
			parts = append(parts, filter[start:i])
			start = i + len(" and ")
		}
	}
	return append(parts, filter[start:])
}

func unquote(s string) string { return strings.ReplaceAll(s, "''", "'") }

func parseCond(cond string) (func(fields) bool, bool) {
	if m := eqForm.FindStringSubmatch(cond); m != nil {
		if m[3] == "" {
			return func(f fields) bool { return f[m[1]] == unquote(m[2]) }, true
		}
		n, _ := strconv.ParseInt(m[3], 10, 64)
		return func(f fields) bool { return f[m[1]] == n }, true
	}
	if mineForm.MatchString(cond) {
		return func(fields) bool { return true }, true
	}
	if m := gtForm.FindStringSubmatch(cond); m != nil {
		n, _ := strconv.ParseInt(m[2], 10, 64)
		return func(f fields) bool { v, ok := f[m[1]].(int64); return ok && v > n }, true
	}
	if m := startForm.FindStringSubmatch(cond); m != nil {
		return func(f fields) bool { v, _ := f[m[1]].(string); return strings.HasPrefix(v, unquote(m[2])) }, true
	}
	if m := inForm.FindStringSubmatch(cond); m != nil {
		ids := strings.Split(m[2], ",")
		return func(f fields) bool {
			v, ok := f[m[1]].(int64)
			return ok && slices.Contains(ids, strconv.FormatInt(v, 10))
		}, true
	}
	return nil, false
}

func (q query) match(f fields) bool {
	for _, cond := range q.conds {
		if !cond(f) {
			return false
		}
	}
	return true
}

func (q query) run(rows []fields) []fields {
	found := []fields{}
	for _, row := range rows {
		if q.match(row) {
			found = append(found, row)
		}
	}
	if q.orderBy == "id" {
		slices.SortFunc(found, func(a, b fields) int { return int(a["id"].(int64) - b["id"].(int64)) })
		if q.desc {
			slices.Reverse(found)
		}
	}
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

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

var (
	eqForm    = regexp.MustCompile(`^(\w+) eq (?:'((?:[^']|'')*)'|(\d+))$`)
	gtForm    = regexp.MustCompile(`^(\w+) gt (\d+)$`)
	startForm = regexp.MustCompile(`^startswith\((\w+),'((?:[^']|'')*)'\)$`)
	// mineForm is how the SDK asks for what the account may use; others' rows are not here anyway.
	mineForm   = regexp.MustCompile(`^is_directly_accessible_by__user/any\(dau:1 eq 1\)$`)
	expandForm = regexp.MustCompile(`(\w+)(?:\([^)]*\))?`)
	inForm     = regexp.MustCompile(`^(\w+) in \((\d+(?:,\d+)*)\)$`)
)
