package balena

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/balena-injector/injector/key"
)

const (
	// freshFor is how old a login may be for minting: 20 minutes at the server, less what a
	// request and a clock's whole seconds may cost.
	freshFor = 19 * time.Minute
	// maxSession caps the text of a session; real ones have some 250 bytes.
	maxSession = 8 << 10
)

// tokenLetters are the characters of a JWT, padding included.
const tokenLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_="

// session is a JWT of balena's. It is a credential in itself.
type session struct {
	token    key.Secret
	userID   int64
	authTime time.Time // when the password was last given
	issued   time.Time
	expires  time.Time
	pending  bool // the second factor is missing
	proven   bool // the server has confirmed it, in this process
	sliding  bool // a refresh moved its expiry, or none was tried yet
}

// parseSession reads the claims of a JWT. The signature is the server's business.
func parseSession(token key.Secret) (*session, error) {
	text := strings.TrimSpace(token.Reveal()) // what an editor or a copy adds is none of it
	token = key.NewSecret(text)
	parts := strings.Split(text, ".")
	if len(text) > maxSession || len(parts) != 3 {
		return nil, errors.New("not a session token: those have three parts between dots and start with eyJ")
	}
	if err := checkEnds(parts[0], parts[2]); err != nil {
		return nil, err
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune(tokenLetters, r) }) {
		return nil, errors.New("not a session token: it has other characters than letters, digits, dots, dashes and " +
			"underscores, such as a line break")
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return nil, errors.New("not a session token: its middle part is not base64")
	}
	var c struct {
		ID       int64 `json:"id"`
		AuthTime int64 `json:"authTime"` // milliseconds
		Issued   int64 `json:"iat"`      // seconds
		Expires  int64 `json:"exp"`      // seconds
		Pending  bool  `json:"twoFactorRequired"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, errors.New("not a session token: its claims are not the JSON of one")
	}
	if c.ID <= 0 || c.Expires <= 0 {
		return nil, errors.New("not a user's session token: it has no user id or no expiry")
	}
	s := &session{token: token, userID: c.ID, authTime: time.UnixMilli(min(c.AuthTime, lastSecond*1000)),
		expires: time.Unix(min(c.Expires, lastSecond), 0), pending: c.Pending, sliding: true}
	if s.issued = time.Unix(c.Issued, 0); c.Issued <= 0 || !s.issued.Before(s.expires) {
		s.issued = time.Time{} // not known
	}
	return s, nil
}

// lastSecond is the end of the year 9998: a time after 9999 cannot be written as text.
const lastSecond = 253370764799

// checkEnds looks at the first and the last part of a token, of which a paste loses something more often than not: the
// first has to name an algorithm, and the last to be as long as that says.
func checkEnds(header, signature string) error {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(header, "="))
	var h struct {
		Algorithm string `json:"alg"`
	}
	if err != nil || json.Unmarshal(raw, &h) != nil || h.Algorithm == "" {
		return errors.New("not a session token: those start with eyJ, and this one has lost its beginning or has something before it")
	}
	want, known := map[string]int{"HS256": 32, "HS384": 48, "HS512": 64, "ES256": 64, "RS256": 256}[h.Algorithm]
	got := len(strings.TrimRight(signature, "="))
	switch want = base64.RawURLEncoding.EncodedLen(want); {
	case got == 0, known && got < want:
		return errors.New("not a whole session token: its end is missing")
	case known && got > want:
		return errors.New("not a session token: it has something behind its end")
	}
	return nil
}

// SessionExpiry returns when a session token runs out, without asking anybody. The error is that of CheckSessionToken.
func SessionExpiry(token key.Secret) (time.Time, error) {
	if err := CheckSessionToken(token); err != nil {
		return time.Time{}, err
	}
	s, err := parseSession(token)
	if err != nil {
		return time.Time{}, err
	}
	return s.expires, nil
}

// fresh reports whether the session can mint a user key at the server's time now.
func (s *session) fresh(now time.Time) bool { return now.Sub(s.authTime) < freshFor }

// dueAt is the server's time at which to look after the session again: when half of its
// life is gone, or, when refreshing moves nothing, shortly before its end. When it was issued counts from now if the
// session does not say that.
func (s *session) dueAt(now time.Time) time.Time {
	if s.issued.IsZero() {
		s.issued = now
	}
	life := s.expires.Sub(s.issued)
	if s.sliding {
		return s.issued.Add(life / 2)
	}
	return s.expires.Add(-life / 10)
}
