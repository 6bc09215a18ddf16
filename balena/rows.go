package balena

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/balena-injector/injector/key"
)

// row is a key as the server lists it.
type row struct {
	ID     int64      `json:"id"`
	Name   string     `json:"name"`
	Expiry *time.Time `json:"expiry_date"`
}

func readRows(r *request, ans *answer) ([]row, error) {
	var page struct {
		D *[]row `json:"d"`
	}
	if err := decode(r, ans, &page); err != nil {
		return nil, err
	}
	if page.D == nil {
		return nil, r.failure(key.Outage, ans, "not the JSON that this API gives")
	}
	return *page.D, nil
}

const columns = "id,name,expiry_date"

// rows reads keys for k's owner. An empty list means something only to a session of the account
// that minted the key, so that is checked; a user key as credential sees too little.
func (i *Issuer) rows(ctx context.Context, k key.Key, kind, op, path string) ([]row, error) {
	ans, r, err := i.call(ctx, false, func(who identity) (request, error) {
		return request{kind: kind, op: op, method: http.MethodGet, path: path}, mayManage(who, k, op)
	})
	switch {
	case err != nil:
		return nil, err
	case ans.status != http.StatusOK:
		return nil, r.failure(key.Wrong, ans, "")
	}
	return readRows(&r, ans)
}

// mayManage tells whether a credential can list, extend and revoke k.
func mayManage(who identity, k key.Key, op string) error {
	switch {
	case !who.session:
		return &Error{Class: key.Unrevocable, Op: op, Reason: "a user key as credential can neither list, extend nor revoke keys"}
	case k.UserID != 0 && who.userID != k.UserID:
		return &Error{Class: key.Wrong, Op: op, Reason: fmt.Sprintf("the key belongs to user %d, and the credential to user %d", k.UserID, who.userID)}
	}
	return nil
}

// Find returns k with the id and expiry that the server has for its name. The newest counts if
// there are several: a server that ignores chosen secrets may have made two.
//
// key.Gone means that the server lists no such key. That proves nothing within seconds of a
// mint that went unanswered, nor for fleet and device keys on openBalena, which are never listed.
func (i *Issuer) Find(ctx context.Context, k key.Key) (key.Key, error) {
	const op = "find the key"
	found, err := i.byName(ctx, k, op, 2)
	if err != nil {
		return k, err
	}
	if len(found) == 0 {
		return k, &Error{Class: key.Gone, Op: op, Reason: "the server lists no key named " + k.Name}
	}
	return merge(k, found[0]), nil
}

// byName lists the keys of k's name, newest first, and nothing else whatever the server sends.
func (i *Issuer) byName(ctx context.Context, k key.Key, op string, top int) ([]row, error) {
	all, err := i.rows(ctx, k, "find", op, query("api_key", columns, "name eq "+literal(k.Name), fmt.Sprintf("&$orderby=id%%20desc&$top=%d", top)))
	found := make([]row, 0, len(all))
	for _, r := range all {
		if r.Name == k.Name && r.ID > 0 {
			found = append(found, r)
		}
	}
	return found, err
}

func merge(k key.Key, r row) key.Key {
	k.ID = r.ID
	if r.Expiry != nil {
		k.Expiry = *r.Expiry
	} else {
		k.Expiry = never
	}
	return k
}

// never stands for the expiry of a key that has none, so that it looks too far off and is
// brought nearer.
var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// Extend moves k's expiry and returns the expiry that the server has then. The caller must
// compare: 200 to the change proves nothing, which is why it is read back. key.Gone means that
// the row is not there (any more).
func (i *Issuer) Extend(ctx context.Context, k key.Key, expiry time.Time) (time.Time, error) {
	const op = "extend the key"
	id, err := newRowID(k.ID)
	if err != nil {
		return k.Expiry, &Error{Class: key.Unrevocable, Op: op, Err: err}
	}
	ans, r, err := i.call(ctx, false, func(who identity) (request, error) {
		return request{kind: "extend", op: op, method: http.MethodPatch, path: keyPath(id),
			body: map[string]string{"expiry_date": timestamp(expiry)}}, mayManage(who, k, op)
	})
	switch {
	case err != nil:
		return k.Expiry, err
	case ans.status != http.StatusOK:
		return k.Expiry, r.failure(key.Wrong, ans, "")
	}
	rows, err := i.rows(ctx, k, "find", op, keyPath(id)+"?$select="+columns)
	if err != nil {
		return k.Expiry, err
	}
	if len(rows) != 1 || rows[0].ID != k.ID || rows[0].Name != k.Name {
		return k.Expiry, &Error{Class: key.Gone, Op: op, Reason: "the server does not list it any more"}
	}
	return merge(k, rows[0]).Expiry, nil
}

// Revoke deletes k and reads back that it is gone. Where name and secret prove each other and a listed row has k's
// id, that row alone is deleted; else every key of k's name, which only we can have given, such as two that a
// server made which ignores chosen secrets. It returns nil when they are gone, also if they were before, and
// key.Unrevocable if the server does not list keys of this kind but still accepts it: then nothing but its expiry
// ends it.
func (i *Issuer) Revoke(ctx context.Context, k key.Key) error {
	const op = "revoke the key"
	found, err := i.byName(ctx, k, op, 10)
	if err != nil {
		return err
	}
	found = ownRows(k, found)
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
			return &Error{Class: key.Outage, Op: op, Reason: "the server said 200 and still lists the key"}
		}
	}
	return nil
}

// ownRows are those of the rows of k's name that are to be deleted for it.
func ownRows(k key.Key, found []row) []row {
	for _, r := range found {
		if r.ID == k.ID && k.Proven() {
			return []row{r}
		}
	}
	return found
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

// Expired is a key that ended long ago and is still listed: the server never purges them.
type Expired struct {
	ID     int64
	Name   string
	Expiry time.Time
}

// expiredPage is how many rows are read at a time.
const expiredPage = 100

// ListExpired returns keys of ours, told by the form of their names, that expired before the
// given time: at most a page of them, oldest first, with an id above after.
func (i *Issuer) ListExpired(ctx context.Context, prefix string, before time.Time, after int64) (found []Expired, last int64, err error) {
	path := query("api_key", columns, fmt.Sprintf("startswith(name,%s) and id gt %d", literal(prefix+"-"), after),
		fmt.Sprintf("&$orderby=id%%20asc&$top=%d", expiredPage))
	rows, err := i.rows(ctx, key.Key{}, "list", "list expired keys", path)
	if err != nil {
		return nil, 0, err
	}
	for _, r := range rows {
		last = max(last, r.ID)
		if key.Named(prefix, r.Name) && r.Expiry != nil && r.Expiry.Before(before) {
			found = append(found, Expired{r.ID, r.Name, *r.Expiry})
		}
	}
	return found, last, nil
}

// DeleteExpired deletes one key that ListExpired returned, after reading it once more: it may
// have been extended in the meantime.
func (i *Issuer) DeleteExpired(ctx context.Context, e Expired, before time.Time) error {
	const op = "delete an expired key"
	id, err := newRowID(e.ID)
	if err != nil {
		return &Error{Class: key.Wrong, Op: op, Err: err}
	}
	rows, err := i.rows(ctx, key.Key{}, "find", op, keyPath(id)+"?$select="+columns)
	if err != nil || len(rows) == 0 {
		return err
	}
	r := rows[0]
	if r.ID != e.ID || r.Name != e.Name || r.Expiry == nil || !r.Expiry.Before(before) {
		return nil
	}
	return i.deleteRow(ctx, key.Key{}, r, op)
}
