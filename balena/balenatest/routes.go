package balenatest

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/key"
)

const (
	loginLimit  = 10
	loginWindow = time.Hour
)

func (s *Server) routes() {
	s.mux = http.NewServeMux()
	handle := func(pattern string, h func(*call)) {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			defer s.mu.Unlock()
			h(s.newCall(w, r))
		})
	}
	handle("POST /login_", s.login)
	handle("POST /auth/totp/verify", s.totp)
	handle("GET /user/v1/refresh-token", s.refresh)
	handle("POST /user/v1/refresh-token", s.refresh)
	handle("GET /user/v1/whoami", s.whoami)
	handle("GET /actor/v1/whoami", s.actorWhoami)
	handle("POST /api-key/user/full", s.mintUser)
	handle("POST /api-key/application/{id}/provisioning", s.provision)
	handle("POST /api-key/device/{id}/device-key", s.deviceKey)
	handle("POST /api-key/v1", s.mintAny)
	handle("POST /api-key/v2", s.mintAny)
	handle("/v6/{resource}", s.resource)
	handle("/v7/{resource}", s.resource)
	handle("GET /v7/{resource}/{count}", s.resource)
	handle("GET /ping", func(c *call) { c.text(http.StatusOK, "text/html", "OK") })
	handle("/", func(c *call) { c.status(http.StatusNotFound) })
}

// call is one request being answered; the server's lock is held.
type call struct {
	s    *Server
	w    http.ResponseWriter
	r    *http.Request
	body map[string]any // nil if there is not JSON object
	bad  bool           // the body is not JSON
	// who asks: at most one of these
	user   *User  // by session
	claims claims // of that session
	key    *Key
}

func (s *Server) newCall(w http.ResponseWriter, r *http.Request) *call {
	c := &call{s: s, w: w, r: r}
	switch r.Header.Get("Content-Type") {
	case "application/json":
		c.bad = json.NewDecoder(r.Body).Decode(&c.body) != nil
	case "application/x-www-form-urlencoded":
		c.body = map[string]any{}
		if r.ParseForm() == nil {
			for name := range r.PostForm {
				c.body[name] = r.PostForm.Get(name)
			}
		}
	}
	bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if bearer == "" || s.down {
		return c
	}
	if claims, u := s.parse(bearer); u != nil && !claims.Pending {
		c.user, c.claims = u, claims
		return c
	}
	c.key = s.keyOf(bearer)
	return c
}

// isSession reports whether the bearer has the form of a session, whatever it is worth.
func (c *call) isSession() bool { return strings.Count(c.r.Header.Get("Authorization"), ".") == 2 }

// account is the user who asks, by session or by a user key; nil for anybody else.
func (c *call) account() *User {
	if c.user != nil {
		return c.user
	}
	if c.key != nil && c.key.Kind == key.User {
		return c.s.userByID(c.key.Owner)
	}
	return nil
}

func (s *Server) userByID(id int64) *User {
	for _, u := range s.users {
		if u.ID == id {
			return u
		}
	}
	return nil
}

func (c *call) status(code int) { c.w.WriteHeader(code) }

func (c *call) text(code int, kind, body string) {
	c.w.Header().Set("Content-Type", kind+"; charset=utf-8")
	c.w.WriteHeader(code)
	_, _ = c.w.Write([]byte(body))
}

func (c *call) json(code int, v any) {
	var out strings.Builder
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
	c.text(code, "application/json", strings.TrimSuffix(out.String(), "\n"))
}

func (c *call) brokenJSON() { c.text(http.StatusBadRequest, "text/html", "<pre>SyntaxError</pre>") }

// unauthorized answers a caller that is not known: with the database down a session gets 500 and a
// key 401.
func (c *call) unauthorized() {
	if c.s.down && c.isSession() {
		c.status(http.StatusInternalServerError)
		return
	}
	c.status(http.StatusUnauthorized)
}

func (c *call) str(name string) string { v, _ := c.body[name].(string); return v }

func (s *Server) login(c *call) {
	name, password := c.str("username"), c.str("password")
	switch {
	case c.bad:
		c.brokenJSON()
		return
	case name == "" || password == "":
		c.status(http.StatusBadRequest)
		return
	}
	now := time.Now()
	var recent []time.Time
	for _, at := range s.fails[name] {
		if now.Sub(at) < loginWindow {
			recent = append(recent, at)
		}
	}
	s.fails[name] = recent
	if len(recent) >= loginLimit {
		c.w.Header().Set("Retry-After", "3600")
		c.json(http.StatusTooManyRequests, "Too Many Requests")
		return
	}
	for _, u := range s.users {
		if !s.down && (u.Name == name || u.Email == name) && u.Password == password {
			delete(s.fails, name)
			now := s.now()
			c.text(http.StatusOK, "text/plain", s.sign(claims{ID: u.ID, Secret: u.jwtSecret, AuthTime: now.UnixMilli(),
				Pending: u.TOTPSecret != "", Issued: now.Unix(), Expires: now.Add(s.opts.SessionLife).Unix()}))
			return
		}
	}
	s.fails[name] = append(recent, now)
	c.status(http.StatusUnauthorized)
}

func (s *Server) totp(c *call) {
	bearer, _ := strings.CutPrefix(c.r.Header.Get("Authorization"), "Bearer ")
	claims, u := s.parse(bearer)
	if s.down {
		c.status(http.StatusInternalServerError)
		return
	}
	if u == nil || u.TOTPSecret == "" {
		c.status(http.StatusUnauthorized)
		return
	}
	for _, step := range []int64{0, -1} {
		want, _ := balena.TOTP(key.NewSecret(u.TOTPSecret), s.now().Unix()/30+step)
		if c.str("code") == want {
			claims.Pending = false
			c.text(http.StatusOK, "text/plain", s.renewed(claims, u, true))
			return
		}
	}
	c.status(http.StatusUnauthorized)
}

func (s *Server) refresh(c *call) {
	_, withPassword := c.body["password"]
	switch {
	case c.user == nil:
		c.unauthorized()
	case withPassword && c.str("password") != c.user.Password:
		c.status(http.StatusUnauthorized)
	default:
		c.text(http.StatusOK, "text/plain", s.renewed(c.claims, c.user, withPassword))
	}
}

func (s *Server) whoami(c *call) {
	u := c.account()
	if u == nil {
		c.unauthorized()
		return
	}
	c.json(http.StatusOK, map[string]any{"id": u.ID, "username": u.Name, "email": u.Email})
}

func (s *Server) actorWhoami(c *call) {
	if u := c.account(); u != nil {
		c.json(http.StatusOK, map[string]any{"id": u.actor, "actorType": "user", "actorTypeId": u.ID, "username": u.Name, "email": u.Email})
		return
	}
	if c.key == nil {
		c.unauthorized()
		return
	}
	answer := map[string]any{"id": c.key.Target + 10000, "actorTypeId": c.key.Target}
	for _, f := range s.fleets {
		if c.key.Kind == key.Fleet && f.ID == c.key.Target {
			answer["actorType"], answer["slug"] = "application", f.Slug
		}
	}
	for _, d := range s.devices {
		if c.key.Kind == key.Device && d.ID == c.key.Target {
			answer["actorType"], answer["uuid"] = "device", d.UUID
		}
	}
	c.json(http.StatusOK, answer)
}
