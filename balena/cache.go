package balena

import (
	"encoding/json"

	"github.com/balena-injector/injector/key"
)

// cacheFile is the session as it is kept across restarts. The login name and the URL keep it
// from being used for another account or sent to another server.
type cacheFile struct {
	URL     string `json:"url"`
	Login   string `json:"login,omitempty"`
	Session string `json:"session"`
}

func (a *Account) parseCache(raw []byte) *session {
	var f cacheFile
	if json.Unmarshal(raw, &f) != nil || f.URL != a.client.URL() || f.Login != a.loginName() {
		return nil
	}
	s, err := parseSession(key.NewSecret(f.Session))
	if err != nil || s.pending || a.isSpent(s.token) {
		return nil
	}
	return s
}
