package balenatest

import (
	"crypto/rand"
	"math/big"
	"net/http"
	"strconv"
	"time"
	"unicode/utf16"

	"github.com/balena-injector/injector/key"
)

const badDate = "Key expiry date should be a valid date"

// mintUser is POST /api-key/user/full.
func (s *Server) mintUser(c *call) {
	name, isText := c.body["name"].(string)
	switch {
	case c.bad:
		c.brokenJSON()
	case c.user == nil:
		c.unauthorized()
	case !s.fresh(c.claims):
		c.json(http.StatusUnauthorized, "Fresh authentication token required")
	case !isText || name == "":
		c.status(http.StatusBadRequest)
	default:
		s.mint(c, Key{Kind: key.User, Target: c.user.ID, Owner: c.user.ID}, "")
	}
}

// provision is POST /api-key/application/ID/provisioning.
func (s *Server) provision(c *call) {
	id, err := strconv.ParseInt(c.r.PathValue("id"), 10, 64)
	if err != nil {
		c.text(http.StatusBadRequest, "text/html", "Application id must be a number")
		return
	}
	u := c.account()
	if u == nil {
		c.unauthorized()
		return
	}
	if s.fleetByID(id, u) == nil {
		c.text(http.StatusInternalServerError, "text/html", "No application found to associate with the api key")
		return
	}
	s.mint(c, Key{Kind: key.Fleet, Target: id, Owner: u.ID}, "")
}

// deviceKey is POST /api-key/device/ID/device-key.
func (s *Server) deviceKey(c *call) {
	u := c.account()
	id, err := strconv.ParseInt(c.r.PathValue("id"), 10, 64)
	switch {
	case u == nil:
		c.unauthorized()
	case err != nil || s.deviceByID(id, u) == nil:
		c.status(http.StatusInternalServerError)
	default:
		s.mint(c, Key{Kind: key.Device, Target: id, Owner: u.ID}, "")
	}
}

func (s *Server) fleetByID(id int64, u *User) *Fleet {
	for _, f := range s.fleets {
		if f.ID == id && f.Owner == u.ID {
			return f
		}
	}
	return nil
}

func (s *Server) deviceByID(id int64, u *User) *Device {
	for _, d := range s.devices {
		if d.ID == id && d.Owner == u.ID {
			return d
		}
	}
	return nil
}

// mintAny is POST /api-key/v1 and /v2, which differ in whether the expiry must be named.
func (s *Server) mintAny(c *call) {
	target, isNumber := c.body["actorTypeId"].(float64)
	roles, _ := c.body["roles"].([]any)
	role, _ := first(roles).(string)
	_, dated := c.body["expiryDate"]
	switch {
	case c.bad:
		c.brokenJSON()
	case s.down && c.isSession():
		c.status(http.StatusInternalServerError)
	case !isNumber || len(roles) == 0:
		c.status(http.StatusBadRequest)
	case len(roles) > 1:
		c.json(http.StatusBadRequest, "API Keys currently only support a single role")
	case role == "named-user-api-key" && c.str("name") == "":
		c.json(http.StatusBadRequest, "API keys with the 'named-user-api-key' role require a name")
	case !dated && c.r.URL.Path == "/api-key/v2":
		c.json(http.StatusBadRequest, badDate)
	default:
		s.mintRole(c, role, int64(target))
	}
}

func first(list []any) any {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

func (s *Server) mintRole(c *call, role string, target int64) {
	u := c.account()
	if u == nil {
		c.unauthorized()
		return
	}
	k := Key{Target: target, Owner: u.ID}
	allowed := false
	switch c.str("actorType") + " " + role {
	case "user named-user-api-key":
		k.Kind, allowed = key.User, c.user != nil && target == u.ID
		if allowed && !s.fresh(c.claims) {
			c.json(http.StatusUnauthorized, "Fresh authentication token required")
			return
		}
	case "application provisioning-api-key":
		k.Kind, allowed = key.Fleet, s.fleetByID(target, u) != nil
	case "device device-api-key":
		k.Kind, allowed = key.Device, s.deviceByID(target, u) != nil
	}
	if !allowed {
		c.status(http.StatusUnauthorized)
		return
	}
	chosen := c.str("apiKey")
	if s.opts.IgnoresChoice {
		chosen = ""
	}
	s.mint(c, k, chosen)
}

// mint checks what all ways of minting check, and makes the key.
func (s *Server) mint(c *call, k Key, chosen string) {
	k.Name, k.Description = c.str("name"), c.str("description")
	if units(k.Name) > 50 {
		c.json(http.StatusBadRequest,
			"It is necessary that each api key that has a name, has a name that has a Length (Type) that is less than or equal to 50.")
		return
	}
	if units(k.Description) > 150 {
		c.json(http.StatusBadRequest,
			"It is necessary that each api key that has a description, has a description that has a Length (Type) that is less "+
				"than or equal to 150.")
		return
	}
	switch date := c.body["expiryDate"].(type) {
	case nil:
	case string:
		at, err := time.Parse(time.RFC3339, date)
		if err != nil {
			c.json(http.StatusBadRequest, badDate)
			return
		}
		k.Expiry = at.UTC()
	default:
		c.status(http.StatusBadRequest)
		return
	}
	if k.Secret = chosen; chosen == "" {
		k.Secret = letters(32)
	}
	if s.keys.bySecret[k.Secret] != nil {
		c.json(http.StatusConflict, `"key" must be unique.`)
		return
	}
	s.add(k)
	c.json(http.StatusOK, k.Secret)
}

func units(text string) int { return len(utf16.Encode([]rune(text))) }

func letters(n int) string {
	const from = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	out := make([]byte, n)
	for i := range out {
		at, _ := rand.Int(rand.Reader, big.NewInt(int64(len(from))))
		out[i] = from[at.Int64()]
	}
	return string(out)
}
