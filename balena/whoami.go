package balena

import (
	"context"
	"net/http"

	"github.com/balena-injector/injector/key"
)

// whoami asks for the user behind a session or a user key. A 401 is key.Refused if the server
// proves to be healthy, otherwise an outage.
func (c *Client) whoami(ctx context.Context, g Gate, bearer key.Secret) (userID int64, err error) {
	r := request{kind: "whoami", op: "check the credential", method: http.MethodGet, path: "/user/v1/whoami", bearer: bearer, gate: g}
	ans, err := c.do(ctx, r)
	switch {
	case err != nil:
		return 0, err
	case ans.status == http.StatusUnauthorized:
		if err := c.healthy(ctx, g); err != nil {
			return 0, err
		}
		return 0, r.failure(key.Refused, ans, "the credential is not accepted")
	case ans.status != http.StatusOK:
		return 0, r.failure(key.Wrong, ans, "")
	}
	var who struct {
		ID int64 `json:"id"`
	}
	if err := decode(&r, ans, &who); err != nil {
		return 0, err
	}
	if who.ID <= 0 {
		return 0, r.notThisAPI(key.Outage, ans, "not the JSON that this API gives")
	}
	return who.ID, nil
}

// healthy asks for something that anybody may read. It answers while the server's database is
// up, and 500 while it is down; /ping would say OK either way.
func (c *Client) healthy(ctx context.Context, g Gate) error {
	r := request{
		kind:   "health",
		op:     "ask whether the server is well",
		method: http.MethodGet,
		path:   "/v7/device_type?$select=id&$top=1",
		gate:   g,
	}
	ans, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	var rows struct {
		D *[]struct{} `json:"d"`
	}
	if ans.status != http.StatusOK || decode(&r, ans, &rows) != nil || rows.D == nil {
		return c.unhealthy(r.notThisAPI(key.Outage, ans, "not how a balena API answers: is the URL right?"))
	}
	return nil
}
