package balena

import (
	"encoding/json"
	"net/http"

	"github.com/balena-injector/injector/key"
)

// hasForm reports whether answers to such a request have a form to tell them by. Where they have none a read follows.
func (r *request) hasForm() bool { return r.kind != "extend" && r.kind != "revoke" }

// answeredBy reports whether an answer has the form that this API gives to such a request, so that its date is the
// server's. Anybody on the way can answer 200, or 401, with a date of its own.
func (r *request) answeredBy(a *answer) bool {
	if a.status != http.StatusOK || !r.hasForm() {
		return false
	}
	switch r.kind {
	case "login", "totp", "refresh", "fresh":
		_, err := parseSession(key.NewSecret(string(a.body)))
		return err == nil
	case "mint":
		var secret string
		return json.Unmarshal(a.body, &secret) == nil && secret != ""
	case "whoami":
		var who struct {
			ID int64 `json:"id"`
		}
		return json.Unmarshal(a.body, &who) == nil && who.ID > 0
	case "verify":
		var who struct {
			ActorType string `json:"actorType"`
		}
		return json.Unmarshal(a.body, &who) == nil && who.ActorType != ""
	}
	var rows struct {
		D *json.RawMessage `json:"d"`
	}
	return json.Unmarshal(a.body, &rows) == nil && rows.D != nil
}
