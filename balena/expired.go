package balena

import (
	"context"
	"fmt"
	"time"

	"github.com/balena-injector/injector/key"
)

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
