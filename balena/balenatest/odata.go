package balenatest

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/balena-injector/injector/key"
)

// fields is a row of a resource.
type fields map[string]any

var resourceForm = regexp.MustCompile(`^(api_key|application|device|device_type)(?:\((\d+)\))?$`)

// resource is everything below /v6 and /v7.
func (s *Server) resource(c *call) {
	form := resourceForm.FindStringSubmatch(c.r.PathValue("resource"))
	if form == nil {
		c.status(http.StatusNotFound)
		return
	}
	q, ok := parseQuery(c.r.URL.RawQuery, form[2])
	if !ok {
		c.status(http.StatusBadRequest)
		return
	}
	switch {
	case s.down && (c.isSession() || c.r.Header.Get("Authorization") == ""):
		c.status(http.StatusInternalServerError)
	case s.down:
		c.status(http.StatusUnauthorized)
	case form[1] == "api_key":
		s.apiKeys(c, q)
	case c.r.Method != http.MethodGet:
		c.status(http.StatusUnauthorized)
	default:
		c.json(http.StatusOK, map[string]any{"d": q.run(s.publicRows(c, form[1]))})
	}
}

// publicRows are what the asking account may see; a guest sees device types only.
func (s *Server) publicRows(c *call, resource string) []fields {
	u := c.account()
	rows := []fields{}
	switch resource {
	case "device_type":
		rows = append(rows, fields{"id": int64(1), "slug": "raspberrypi4-64"})
	case "application":
		for _, f := range s.fleets {
			if u != nil && f.Owner == u.ID {
				_, name, _ := strings.Cut(f.Slug, "/")
				rows = append(rows, fields{"id": f.ID, "slug": f.Slug, "uuid": f.UUID, "app_name": name,
					"is_for__device_type": []fields{{"slug": "raspberrypi4-64"}}, "owns__device": []fields{}})
			}
		}
	case "device":
		for _, d := range s.devices {
			if u != nil && d.Owner == u.ID {
				rows = append(rows, fields{"id": d.ID, "uuid": d.UUID})
			}
		}
	}
	return rows
}

func (s *Server) apiKeys(c *call, q query) {
	u := c.account()
	if u == nil || c.r.Method != http.MethodGet && c.user == nil || c.r.Method == http.MethodPost {
		c.status(http.StatusUnauthorized)
		return
	}
	switch c.r.Method {
	case http.MethodGet:
		rows := []fields{}
		for _, k := range s.keys.among(q) {
			if s.visible(k, u) {
				rows = append(rows, s.keyRow(k))
			}
		}
		c.json(http.StatusOK, map[string]any{"d": q.run(rows)})
	case http.MethodPatch:
		s.patch(c, q, u)
	case http.MethodDelete:
		s.keys.remove(s.matching(q, u))
		s.done(c)
	default:
		c.status(http.StatusNotFound)
	}
}

func (s *Server) visible(k *Key, u *User) bool {
	return k.Owner == u.ID && (k.Kind == key.User || s.opts.ListsAll)
}

// done is the answer to a change: empty in v7, OK in v6.
func (s *Server) done(c *call) {
	if strings.HasPrefix(c.r.URL.Path, "/v6/") {
		c.text(http.StatusOK, "application/json", "OK")
		return
	}
	c.status(http.StatusOK)
}

func (s *Server) patch(c *call, q query, u *User) {
	if len(c.body) == 0 {
		c.json(http.StatusBadRequest, "No fields to update")
		return
	}
	raw, ok := c.body["expiry_date"].(string)
	if !ok {
		c.status(http.StatusInternalServerError)
		return
	}
	at := time.Unix(0, 0).UTC() // what the server reads from an empty string
	if raw != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, raw); err != nil {
			c.status(http.StatusBadRequest)
			return
		}
	}
	for _, k := range s.matching(q, u) {
		k.Expiry = at.UTC()
	}
	s.done(c)
}

// matching returns the keys that a change by u is about.
func (s *Server) matching(q query, u *User) []*Key {
	var found []*Key
	for _, k := range s.keys.among(q) {
		if s.visible(k, u) && q.match(s.keyRow(k)) {
			found = append(found, k)
		}
	}
	return found
}

func (s *Server) keyRow(k *Key) fields {
	row := fields{"id": k.ID, "name": k.Name, "description": nil, "expiry_date": nil,
		"created_at": stamp(k.Created.Add(s.opts.DatabaseAhead)), "is_of__actor": k.Target + 10000}
	if k.Description != "" {
		row["description"] = k.Description
	}
	if !k.Expiry.IsZero() {
		row["expiry_date"] = stamp(k.Expiry)
	}
	if u := s.userByID(k.Target); u != nil && k.Kind == key.User {
		row["is_of__actor"] = u.actor
	}
	return row
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// query is the part of OData that balena's clients use on these resources.
type query struct {
	id       int64  // in parentheses; 0: none
	name     string // asked for by "name eq"; it is among conds, too
	selected []string
	conds    []func(fields) bool
	orderBy  string
	desc     bool
	top      int
}

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
	var expanded []string // what is named here is there as a whole
	for _, part := range strings.Split(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		value, err := url.PathUnescape(value) // a plus sign is no blank
		if err != nil {
			return q, false
		}
		switch name {
		case "$select":
			q.selected = strings.Split(value, ",")
		case "$top":
			if q.top, err = strconv.Atoi(value); err != nil {
				return q, false
			}
		case "$expand":
			for _, m := range expandForm.FindAllStringSubmatch(value, -1) {
				expanded = append(expanded, m[1])
			}
		case "$orderby":
			var dir string
			q.orderBy, dir, _ = strings.Cut(value, " ")
			q.desc = dir == "desc"
		case "$filter":
			for _, cond := range splitAnd(value) {
				match, ok := parseCond(cond)
				if !ok {
					return q, false
				}
				q.conds = append(q.conds, match)
				if m := eqForm.FindStringSubmatch(cond); m != nil && m[1] == "name" {
					q.name = unquote(m[2])
				}
			}
		}
	}
	if q.selected != nil {
		q.selected = append(q.selected, expanded...)
	}
	return q, true
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

var (
	eqForm    = regexp.MustCompile(`^(\w+) eq (?:'((?:[^']|'')*)'|(\d+))$`)
	gtForm    = regexp.MustCompile(`^(\w+) gt (\d+)$`)
	startForm = regexp.MustCompile(`^startswith\((\w+),'((?:[^']|'')*)'\)$`)
	// mineForm is how the SDK asks for what the account may use; others' rows are not here anyway.
	mineForm   = regexp.MustCompile(`^is_directly_accessible_by__user/any\(dau:1 eq 1\)$`)
	expandForm = regexp.MustCompile(`(\w+)(?:\([^)]*\))?`)
	inForm     = regexp.MustCompile(`^(\w+) in \((\d+(?:,\d+)*)\)$`)
)

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
