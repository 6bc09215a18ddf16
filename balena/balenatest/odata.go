package balenatest

import (
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/balena-injector/injector/key"
)

// fields is a row of a resource.
type fields map[string]any

// longestRequest is how long a request line may be: one of 15 kB was answered, one of 24 kB was not. Node's limit for all
// headers together is 16 KiB.
const longestRequest = 16 << 10

var resourceForm = regexp.MustCompile(`^(api_key|application|device|device_type)(?:\((\d+)\))?$`)

// resource is everything below /v6 and /v7.
func (s *Server) resource(c *call) {
	if len(c.r.RequestURI) > longestRequest {
		c.status(http.StatusRequestHeaderFieldsTooLarge)
		return
	}
	if count := c.r.PathValue("count"); count != "" && count != "$count" {
		c.status(http.StatusNotFound)
		return
	}
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
			if !s.visible(k, u) {
				continue
			}
			if row := s.keyRow(k); q.match(row) {
				rows = append(rows, row)
			}
			if q.inOrder() && len(rows) == q.skip+q.top {
				break
			}
		}
		if rows = q.run(rows); c.r.PathValue("count") != "" {
			c.json(http.StatusOK, map[string]any{"d": len(rows)})
			return
		}
		c.json(http.StatusOK, map[string]any{"d": rows})
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
