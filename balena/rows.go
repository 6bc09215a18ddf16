package balena

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/balena-injector/injector/key"
)

// row is a key as the server lists it.
type row struct {
	ID      int64      `json:"id"`
	Name    string     `json:"name"`
	Expiry  *time.Time `json:"expiry_date"`
	Created *time.Time `json:"created_at"`
}

func readRows(r *request, ans *answer) ([]row, error) {
	var page struct {
		D *[]row `json:"d"`
	}
	if err := decode(r, ans, &page); err != nil {
		return nil, err
	}
	if page.D == nil {
		return nil, r.notThisAPI(key.Outage, ans, "not the JSON that this API gives")
	}
	return *page.D, nil
}

const columns = "id,name,expiry_date,created_at"

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

// mayManage reports whether a credential can list, extend and revoke k.
func mayManage(who identity, k key.Key, op string) error {
	switch {
	case !who.session:
		return &Error{Class: key.Unrevocable, Op: op, Reason: "a user key as credential can neither list, extend nor revoke keys"}
	case k.UserID != 0 && who.userID != k.UserID:
		return &Error{
			Class:  key.Wrong,
			Op:     op,
			Reason: fmt.Sprintf("the key belongs to user %d, and the credential to user %d", k.UserID, who.userID),
		}
	}
	return nil
}

// Find returns k with the id and expiry of the row that our mint made, and Seen. Of a server that ignores chosen secrets
// and made several, the newest counts.
//
// key.Gone means that the server lists no such key. That proves nothing within seconds of a
// mint that went unanswered, nor for fleet and device keys on openBalena, which are never listed.
func (i *Issuer) Find(ctx context.Context, k key.Key) (key.Key, error) {
	if got, done, err := i.together(ctx, finding, k, time.Time{}); done {
		return got, err
	}
	found, err := i.byName(ctx, k, ops[finding])
	if err != nil {
		return k, err
	}
	if len(found) == 0 {
		return k, notListed(k)
	}
	return merge(k, found[len(found)-1]), nil
}

func notListed(k key.Key) error {
	return &Error{Class: key.Gone, Op: ops[finding], Reason: "the server lists no key named " + k.Name}
}

// sameName is how many rows of one name are read: somebody may have made others of our name, later than we did.
const sameName = 10

// byName lists the rows of k's name that are ours, the oldest first, whatever else the server sends.
func (i *Issuer) byName(ctx context.Context, k key.Key, op string) ([]row, error) {
	more := fmt.Sprintf("&$orderby=id%%20asc&$top=%d", sameName)
	all, err := i.rows(ctx, k, "find", op, query("api_key", columns, "name eq "+literal(k.Name), more))
	if err != nil {
		return nil, err
	}
	found := make([]row, 0, len(all))
	for _, r := range all {
		if r.Name == k.Name && r.ID > 0 {
			found = append(found, r)
		}
	}
	slices.SortFunc(found, func(a, b row) int { return cmp.Compare(a.ID, b.ID) })
	return i.ours(ctx, k, found)
}

// ours returns those of the rows of k's name, the oldest first, that our mint made. Anybody in the account can give
// another key this name once it is listed, but nobody could before: the name is a hash of the secret. So the first row
// is ours, if it was there when our mint was answered, or if the server accepts our secret. More than one can only be
// ours where the server chose the secrets.
func (i *Issuer) ours(ctx context.Context, k key.Key, found []row) ([]row, error) {
	if len(found) == 0 {
		return nil, nil
	}
	if k.Given {
		return slices.DeleteFunc(found, func(r row) bool { return !k.Minted.IsZero() && !r.madeBy(k.Minted, databaseSlack) }), nil
	}
	first := found[:1]
	switch {
	case first[0].madeBy(k.Minted, madeSlack):
		return first, nil
	case k.Secret.IsZero() && (k.Minted.IsZero() || first[0].madeBy(k.Minted, databaseSlack)):
		return first, nil // a journal on a disk: there is nothing to ask
	}
	if now, known := i.client.Now(); known && first[0].Expiry != nil && first[0].Expiry.Before(now) {
		return nil, nil // nothing of it lives
	}
	if k.Secret.IsZero() {
		return nil, &Error{Class: key.Wrong, Op: "tell whose key it is",
			Reason: "a key named " + k.Name + " is listed, and nothing proves that it is ours"}
	}
	return i.oursIfAccepted(ctx, k, first)
}

// oursIfAccepted asks for the key itself: if the server accepts it, its row is there, and so the first one. A refusal
// says that none is ours, unless the key may be so new that it is not known everywhere.
func (i *Issuer) oursIfAccepted(ctx context.Context, k key.Key, first []row) ([]row, error) {
	err := i.Verify(ctx, k)
	now, known := i.client.Now()
	switch {
	case err == nil:
		return first, nil
	case !key.Is(err, key.Gone):
		return nil, err
	case known && !k.Minted.IsZero() && now.Sub(k.Minted) > knownEverywhere:
		return nil, nil
	}
	return nil, &Error{Class: key.Outage, Op: "tell whose key it is",
		Reason: "a key named " + k.Name + " is listed, and the server does not accept its secret yet"}
}

const (
	// madeSlack is how much later than the answer to its mint a row may claim to be made: the answer's date has whole
	// seconds, and the server's database a clock of its own.
	madeSlack = 5 * time.Second
	// databaseSlack is the same where nothing else can prove the row.
	databaseSlack = time.Minute
	// knownEverywhere is how long it takes at most until a new key is known to every server of balenaCloud; 71 s were seen.
	knownEverywhere = 2 * time.Minute
)

// madeBy reports whether the row was there at that time, give or take slack; false if either is not known.
func (r row) madeBy(at time.Time, slack time.Duration) bool {
	return r.Created != nil && !at.IsZero() && !r.Created.After(at.Add(slack))
}

func merge(k key.Key, r row) key.Key {
	k.ID, k.Seen = r.ID, true
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

// Extend moves k's expiry and returns k as the server has it then. The caller must compare the expiry: 200 to the
// change proves nothing, which is why it is read back. A row that this process has not seen is found first, so that
// nobody else's is changed. key.Gone means that the row is not there (any more).
func (i *Issuer) Extend(ctx context.Context, k key.Key, expiry time.Time) (key.Key, error) {
	if got, done, err := i.together(ctx, extending, k, expiry); done {
		return got, err
	}
	const op = "extend the key"
	if !k.Seen {
		var err error
		if k, err = i.Find(ctx, k); err != nil {
			return k, err
		}
	}
	id, err := newRowID(k.ID)
	if err != nil {
		return k, &Error{Class: key.Unrevocable, Op: op, Err: err}
	}
	ans, r, err := i.call(ctx, false, func(who identity) (request, error) {
		return request{kind: "extend", op: op, method: http.MethodPatch, path: keyPath(id),
			body: map[string]string{"expiry_date": timestamp(expiry)}}, mayManage(who, k, op)
	})
	switch {
	case err != nil:
		return k, err
	case ans.status != http.StatusOK:
		return k, r.failure(key.Wrong, ans, "")
	}
	rows, err := i.rows(ctx, k, "find", op, keyPath(id)+"?$select="+columns)
	if err != nil {
		return k, afterwards(err)
	}
	if len(rows) != 1 || rows[0].ID != k.ID || rows[0].Name != k.Name {
		return k, &Error{Class: key.Gone, Op: op, Reason: "the server does not list it any more"}
	}
	return merge(k, rows[0]), nil
}
