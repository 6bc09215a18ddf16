package balenatest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// signingSecret signs all sessions; the contract's replay forges sessions with it.
const signingSecret = "stand-in-jwt-secret"

type claims struct {
	ID       int64  `json:"id"`
	Secret   string `json:"jwt_secret"`
	AuthTime int64  `json:"authTime"` // milliseconds
	Pending  bool   `json:"twoFactorRequired,omitempty"`
	Issued   int64  `json:"iat"`
	Expires  int64  `json:"exp"`
}

func (s *Server) sign(c claims) string {
	body, _ := json.Marshal(c)
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	return text + "." + base64.RawURLEncoding.EncodeToString(mac(text))
}

func mac(text string) []byte {
	m := hmac.New(sha256.New, []byte(signingSecret))
	m.Write([]byte(text))
	return m.Sum(nil)
}

// parse returns the claims of a session that the server signed and that is not over.
func (s *Server) parse(token string) (claims, *User) {
	var c claims
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, nil
	}
	sum, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !hmac.Equal(sum, mac(parts[0]+"."+parts[1])) {
		return c, nil
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(body, &c) != nil || s.now().Unix() >= c.Expires {
		return c, nil
	}
	for _, u := range s.users {
		if u.ID == c.ID && u.jwtSecret == c.Secret {
			return c, u
		}
	}
	return c, nil
}

func (s *Server) fresh(c claims) bool {
	return s.now().Sub(time.UnixMilli(c.AuthTime)) < s.opts.FreshFor
}

// renewed returns a session in place of the one with claims c.
func (s *Server) renewed(c claims, u *User, withPassword bool) string {
	now := s.now()
	c.Issued = now.Unix()
	if withPassword {
		c.AuthTime = now.UnixMilli()
	}
	if !s.opts.FixedExpiry {
		c.Expires = now.Add(s.opts.SessionLife).Unix()
	}
	c.Secret = u.jwtSecret
	return s.sign(c)
}

// SessionLike returns a session of a login just now for a user of another server, by s's rules: another lifetime, say.
func (s *Server) SessionLike(other *Server, u *User) string {
	other.mu.Lock()
	defer other.mu.Unlock()
	now := other.now()
	return s.sign(claims{ID: u.ID, Secret: u.jwtSecret, AuthTime: now.UnixMilli(), Issued: now.Unix(),
		Expires: now.Add(s.opts.SessionLife).Unix()})
}

// PendingSession returns a session of a login just now that waits for its second factor.
func (s *Server) PendingSession(u *User) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	return s.sign(claims{ID: u.ID, Secret: u.jwtSecret, AuthTime: now.UnixMilli(), Pending: true,
		Issued: now.Unix(), Expires: now.Add(s.opts.SessionLife).Unix()})
}
