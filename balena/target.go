package balena

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/balena-injector/injector/key"
)

// Target names the fleet or device that a key acts for: by slug (organisation/fleet), by uuid
// or by id. The zero value is for user keys, which have no target but the user.
type Target struct {
	text   string
	column string
}

var (
	idForm   = form(`^[1-9][0-9]{0,14}$`)
	uuidForm = form(`^([0-9a-f]{32}|[0-9a-f]{62})$`)
	slugForm = form(`^[a-z0-9_-]+/[a-z0-9_-]+$`)
)

// form returns a regular expression that is compiled when it is needed first: most starts need none.
func form(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// ParseTarget reads a target of that kind. Errors say which forms there are.
func ParseTarget(kind key.Kind, text string) (Target, error) {
	lower := strings.ToLower(text)
	switch {
	case kind == key.User && text == "":
		return Target{}, nil
	case kind == key.User:
		return Target{}, errors.New("is for fleet and device keys; a user key acts for the account itself")
	case text == "":
		return Target{}, fmt.Errorf("is needed for a %s key: its %s", kind, forms(kind))
	case idForm().MatchString(lower):
		return Target{lower, "id"}, nil
	case uuidForm().MatchString(lower):
		return Target{lower, "uuid"}, nil
	case kind == key.Fleet && slugForm().MatchString(lower):
		return Target{lower, "slug"}, nil
	}
	return Target{}, fmt.Errorf("must be the %s's %s", kind, forms(kind))
}

func forms(kind key.Kind) string {
	if kind == key.Fleet {
		return "slug (organisation/fleet), uuid (32 or 62 hex digits) or numeric id"
	}
	return "uuid (32 or 62 hex digits) or numeric id"
}

// String returns the target as it was given, in lower case.
func (t Target) String() string { return t.text }

// lookUp returns the id behind a target. who must be confirmed: a dead credential is a guest,
// and a guest's "no such fleet" proves nothing.
func (c *Client) lookUp(ctx context.Context, g Gate, who identity, kind key.Kind, t Target) (int64, error) {
	resource, value := "application", literal(t.text)
	if kind == key.Device {
		resource = "device"
	}
	if t.column == "id" {
		value = t.text
	}
	r := request{kind: "lookup", op: fmt.Sprintf("look up the %s %s", kind, t), method: http.MethodGet, bearer: who.bearer, gate: g,
		path: query(resource, "id", t.column+" eq "+value, "&$top=2")}
	ans, err := c.do(ctx, r)
	switch {
	case err != nil:
		return 0, err
	case ans.status != http.StatusOK:
		return 0, r.failure(key.Wrong, ans, "")
	}
	rows, err := readRows(&r, ans)
	if err != nil {
		return 0, err
	}
	if len(rows) != 1 || rows[0].ID <= 0 {
		return 0, &Error{Class: key.Wrong, Op: r.op, Reason: "it does not exist, or this account may not see it"}
	}
	return rows[0].ID, nil
}
