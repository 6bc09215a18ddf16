package balena

import (
	"errors"

	"github.com/balena-injector/injector/key"
)

// Source gives a credential as it is now: from a variable, or from a file that is read again
// each time. It returns the absent secret when there is none, and an error that names the file
// when it cannot be read.
type Source func() (key.Secret, error)

// Credentials are what an Account logs in with. The first kind that is there is used:
// a user name with a password, a session token, a user key.
type Credentials struct {
	Username string // name or e-mail address; needed with Password
	Password Source // nil for none
	TOTP     Source // the two-factor secret; nil for none
	Session  Source // a session token; nil for none
	UserKey  Source // an API key of the user; mints fleet and device keys only; nil for none
}

// method is the kind of credential in use.
type method int

const (
	byPassword method = iota
	bySession
	byUserKey
)

func (c Credentials) method() (method, error) {
	switch {
	case c.Password != nil && c.Username != "":
		return byPassword, nil
	case c.Session != nil:
		return bySession, nil
	case c.UserKey != nil:
		return byUserKey, nil
	}
	return 0, errors.New("no credential: give a user name with a password, a session token or a user key")
}

// read returns a source's secret, and the absent one for no source.
func (s Source) read() (key.Secret, error) {
	if s == nil {
		return key.Secret{}, nil
	}
	return s()
}

// Store keeps a few bytes across restarts. Load returns nil without an error when there are
// none yet. A nil Store keeps nothing.
type Store interface {
	Load() ([]byte, error)
	Save([]byte) error
}
