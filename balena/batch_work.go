package balena

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/balena-injector/injector/key"
)

// mostAsked is how many keys that a list does not show are asked for themselves: if one of them is accepted, the list is
// wrong, and says nothing of the others either.
const mostAsked = 3

// find reads the rows of g's names.
func (b *batches) find(ctx context.Context, g *batch) {
	names, of := make([]string, 0, len(g.members)), map[string][]row{}
	for _, m := range g.members {
		names = append(names, literal(m.key.Name))
		of[m.key.Name] = nil
	}
	path := query("api_key", columns, "name in ("+strings.Join(names, ",")+")", "&$orderby=id%20asc")
	rows, err := b.issuer(g).rows(ctx, g.owner(), "find", ops[g.work], path)
	if err == nil && slices.ContainsFunc(rows, func(r row) bool { _, asked := of[r.Name]; return !asked }) {
		err = b.lost()
	}
	if err != nil {
		b.fail(ctx, g, err)
		return
	}
	for _, r := range rows {
		of[r.Name] = append(of[r.Name], r)
	}
	for _, m := range g.members {
		found := of[m.key.Name]
		slices.SortFunc(found, func(a, b row) int { return cmp.Compare(a.ID, b.ID) })
		switch {
		case len(found) == 0:
			m.tell(outcome{apart: true}) // a list of many convicts nobody: there may have been a mint, whose key would be forgotten
		case found[0].madeBy(m.key.Minted, madeSlack):
			m.tell(outcome{key: merge(m.key, found[0])})
		default:
			m.tell(outcome{apart: true}) // whose it is takes more than a look
		}
	}
}

// extend moves the expiry of those of g's keys that would end earlier otherwise.
func (b *batches) extend(ctx context.Context, g *batch) {
	issuer := b.issuer(g)
	before, err := b.look(ctx, issuer, g, g.members)
	if err != nil {
		b.fail(ctx, g, err)
		return
	}
	var moving []*member
	for _, m := range g.members {
		if r, ok := before[m.key.ID]; ok && m.owns(r) && r.Expiry != nil && r.Expiry.Before(g.expiry) {
			moving = append(moving, m)
		} else {
			m.tell(outcome{apart: true})
		}
	}
	if g.members = moving; len(moving) == 0 {
		return
	}
	guard := " and expiry_date lt '" + timestamp(g.expiry) + "'" // a late or repeated request shortens nothing
	err = b.write(ctx, issuer, g, http.MethodPatch, "extend", guard, map[string]string{"expiry_date": timestamp(g.expiry)})
	if err != nil {
		b.fail(ctx, g, err)
		return
	}
	after, err := b.look(ctx, issuer, g, moving)
	if err != nil {
		b.fail(ctx, g, afterwards(err))
		return
	}
	b.wentWell()
	for _, m := range moving {
		if r, ok := after[m.key.ID]; ok && m.owns(r) && r.Expiry != nil && !r.Expiry.Before(g.expiry.Add(-time.Millisecond)) {
			m.tell(outcome{key: merge(m.key, r)})
		} else {
			m.tell(outcome{apart: true, sent: true})
		}
	}
}

// revoke deletes g's keys. One that the list does not show is deleted as well, by its id and prefix, if this process has
// seen its row: that it is not listed proves nothing.
func (b *batches) revoke(ctx context.Context, g *batch) {
	issuer := b.issuer(g)
	before, err := b.look(ctx, issuer, g, g.members)
	if err != nil {
		b.fail(ctx, g, err)
		return
	}
	g.leave(func(m *member) bool {
		r, listed := before[m.key.ID]
		if listed && m.owns(r) || !listed && m.key.Seen {
			return false
		}
		m.tell(outcome{apart: true}) // its id is a journal's word, or the row is not ours
		return true
	})
	if len(g.members) == 0 {
		return
	}
	if err := b.write(ctx, issuer, g, http.MethodDelete, "revoke", "", nil); err != nil {
		b.fail(ctx, g, err)
		return
	}
	after, err := b.look(ctx, issuer, g, g.members)
	if err != nil {
		b.fail(ctx, g, err)
		return
	}
	b.wentWell()
	g.leave(func(m *member) bool {
		_, there := after[m.key.ID]
		_, was := before[m.key.ID]
		switch {
		case there:
			m.tell(outcome{err: stillListed(ops[revoking])})
		case was:
			m.tell(outcome{})
		}
		return there || was
	})
	b.judgeMissing(ctx, issuer, g)
}

// judgeMissing decides about keys that were deleted and that no list has shown: some of them are asked. If the server
// accepts one, its lists show only a part, and batches are of no use.
func (b *batches) judgeMissing(ctx context.Context, issuer *Issuer, g *batch) {
	var verdict error
	asked, partial := 0, false
	for _, m := range g.members {
		if m.key.Secret.IsZero() || asked == mostAsked || partial || verdict != nil {
			continue
		}
		asked++
		if err := issuer.Verify(ctx, m.key); err == nil {
			partial = true
			b.end(singlyFor, errPartial)
		} else if !key.Is(err, key.Gone) {
			verdict = err
		}
	}
	for _, m := range g.members {
		m.tell(outcome{err: verdict, apart: partial})
	}
}

var errPartial = errors.New("the server lists only a part of what it is asked for, and accepts keys that it does not list")

// owns reports whether r is the row that m's mint made.
func (m *member) owns(r row) bool {
	return r.Name == m.key.Name && (m.key.Seen || r.madeBy(m.key.Minted, madeSlack))
}

// look reads the rows of members, by id. A row that was not asked for ends all batches.
func (b *batches) look(ctx context.Context, issuer *Issuer, g *batch, members []*member) (map[int64]row, error) {
	c, err := g.choose(members)
	if err != nil {
		return nil, err
	}
	rows, err := issuer.rows(ctx, g.owner(), "list", ops[g.work], query("api_key", columns, c.filter(), "&$orderby=id%20asc"))
	if err != nil {
		return nil, err
	}
	found := make(map[int64]row, len(rows))
	for _, r := range rows {
		if !slices.Contains(c.ids, r.ID) || !strings.HasPrefix(r.Name, c.prefix+"-") {
			return nil, b.lost()
		}
		found[r.ID] = r
	}
	return found, nil
}

// choose names the rows of members.
func (g *batch) choose(members []*member) (chosen, error) {
	ids := make([]int64, 0, len(members))
	for _, m := range members {
		ids = append(ids, m.key.ID)
	}
	c, err := choose(ids, g.prefix)
	if err != nil {
		return c, &Error{Class: key.Wrong, Op: ops[g.work], Err: err}
	}
	return c, nil
}

// write changes the rows of g.
func (b *batches) write(ctx context.Context, issuer *Issuer, g *batch, method, kind, guard string, body any) error {
	c, err := g.choose(g.members)
	if err != nil {
		return err
	}
	g.written = true
	ans, r, err := issuer.call(ctx, false, func(who identity) (request, error) {
		r := request{kind: kind, op: ops[g.work], method: method, path: keysPath(c, guard), body: body}
		return r, mayManage(who, g.owner(), ops[g.work])
	})
	if err == nil && ans.status != http.StatusOK {
		err = r.failure(key.Wrong, ans, "")
	}
	return err
}

// errLost is why batches end: their filters do not reach the server.
var errLost = errors.New("the server listed keys that it was not asked for: filters get lost on the way to it, in a proxy perhaps")

// lost ends all batches of the account, for good: what such a request would do next nobody knows.
func (b *batches) lost() error {
	b.end(farOff, errLost)
	return errLost
}

// lostFilters is lost for an account that may have no batches.
func (a *Account) lostFilters() error {
	if a.batches == nil {
		return errLost
	}
	return a.batches.lost()
}

const farOff = 100 * 365 * 24 * time.Hour

// end makes each key be looked after by itself from now on, and says so once.
func (b *batches) end(d time.Duration, why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	said := now.Before(b.singly)
	if until := now.Add(d); until.After(b.singly) {
		b.singly = until
	}
	b.strikes = 0
	if !said {
		b.account.log.Warn("keys cannot be extended and revoked together; each is looked after by itself, which takes more requests",
			"error", why)
	}
}

// wentWell notes that a batch was answered: what failed before was not the batches' fault.
func (b *batches) wentWell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.strikes = 0
}

// fail decides what a failed request of a batch means for its members: the batch may be at fault, and the server well.
func (b *batches) fail(ctx context.Context, g *batch, err error) {
	sent := g.written
	e, _ := errors.AsType[*Error](err)
	switch {
	case errors.Is(err, errLost):
		g.tellAll(outcome{apart: true, sent: sent})
		return
	case e != nil && e.Class == key.Wrong && e.Status >= 400:
		b.end(singlyFor, err)
		g.tellAll(outcome{apart: true, sent: sent})
		return
	case e != nil && e.Status >= 500 && b.account.secondOpinion(ctx, b.issuer(g).gate) == nil:
		b.mu.Lock()
		b.strikes++
		twice := b.strikes > 1
		b.mu.Unlock()
		if twice {
			b.end(singlyFor, err)
			g.tellAll(outcome{apart: true, sent: sent})
			return
		}
	}
	g.tellAll(outcome{err: err})
}
