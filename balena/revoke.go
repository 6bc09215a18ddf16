package balena

import (
	"context"
	"net/http"
	"time"

	"github.com/balena-injector/injector/key"
)

// Revoke deletes k and reads back that it is gone: the row that this process has seen, or else the one of k's name that
// our mint made, or all of them where the server chose the secrets. It returns nil when nothing of k is left, also if
// that was so before, and key.Unrevocable if the server does not list keys of this kind but still accepts it: then
// nothing but its expiry ends it.
func (i *Issuer) Revoke(ctx context.Context, k key.Key) error {
	if k.ID == 0 {
		found, done, err := i.together(ctx, finding, k, time.Time{})
		if done && err == nil {
			k = found
		} else if done && !key.Is(err, key.Gone) {
			return err
		}
	}
	if _, done, err := i.together(ctx, revoking, k, time.Time{}); done {
		return err
	}
	const op = "revoke the key"
	found := []row{{ID: k.ID, Name: k.Name}}
	if !k.Seen || k.Given {
		var err error
		if found, err = i.byName(ctx, k, op); err != nil {
			return err
		}
	}
	if len(found) == 0 {
		return i.revokedUnlisted(ctx, k)
	}
	for _, r := range found {
		if err := i.deleteRow(ctx, k, r, op); err != nil {
			return err
		}
	}
	for _, r := range found {
		left, err := i.rows(ctx, k, "find", op, keyPath(rowID{r.ID})+"?$select="+columns)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			return stillListed(op)
		}
	}
	return nil
}

func stillListed(op string) error {
	return &Error{Class: key.Outage, Op: op, Reason: "the server said 200 and still lists the key"}
}

// revokedUnlisted asks the key itself: an empty list does not prove that it is dead.
func (i *Issuer) revokedUnlisted(ctx context.Context, k key.Key) error {
	if k.Secret.IsZero() {
		if k.Kind == key.User {
			return nil
		}
		return &Error{Class: key.Unrevocable, Op: "revoke the key", Reason: "the server does not list keys of this kind"}
	}
	switch err := i.Verify(ctx, k); {
	case key.Is(err, key.Gone):
		return nil
	case err == nil && k.Kind == key.User: // such keys are listed: an empty list was a wrong answer
		return &Error{Class: key.Outage, Op: "revoke the key", Reason: "the server does not list it at the moment, but accepts it"}
	case err == nil:
		return &Error{Class: key.Unrevocable, Op: "revoke the key", Reason: "the server does not list it, but still accepts it"}
	default:
		return err
	}
}

func (i *Issuer) deleteRow(ctx context.Context, owner key.Key, r row, op string) error {
	id, err := newRowID(r.ID)
	if err != nil {
		return &Error{Class: key.Wrong, Op: op, Err: err}
	}
	ans, req, err := i.call(ctx, false, func(who identity) (request, error) {
		return request{kind: "revoke", op: op, method: http.MethodDelete, path: keyPath(id)}, mayManage(who, owner, op)
	})
	switch {
	case err != nil:
		return err
	case ans.status != http.StatusOK:
		return req.failure(key.Wrong, ans, "")
	}
	return nil
}
