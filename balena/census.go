package balena

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/balena-injector/injector/key"
	"github.com/balena-injector/injector/turn"
)

const (
	// fewest is for how many keys of a prefix lists are worth their requests.
	fewest = 10
	// pageRows is how many rows are read at a time: a page stays below maxBody, whatever the prefix.
	pageRows = 1500
	// settleTime is how long a census waits for more who ask for it, and settleMost how long in all.
	settleTime = 500 * time.Millisecond
	settleMost = 5 * time.Second
	// samples is how many keys are asked for themselves after each census, each time others.
	samples = 3
	// censusPause is the pause after one that failed. It doubles with each that fails, up to the interval.
	censusPause = 15 * time.Second
)

// Keeper is who keeps one key and wants to know that it exists. Its methods must not block, and may be called from any
// goroutine.
type Keeper interface {
	// Holds returns the key that is in use; ok is false while there is none.
	Holds() (k key.Key, ok bool)
	// Sighted tells that the server lists the key that Holds returned: k, with the id and expiry that were listed at some
	// time since then. What was learned of it later counts more.
	Sighted(k key.Key, since time.Time)
	// Doubt asks for the key to be asked for itself: it is missing from the list, which may be why its app is refused, or it
	// is its turn.
	Doubt(missing bool)
}

// Census lists the keys of an account, page by page, for all who keep one, instead of each asking for its own. A list
// proves that a key exists, until when. It does not prove that the server accepts it, so a few keys are asked each time,
// others each time; and that a key is not listed proves nothing: then it is asked for itself. Make it with NewCensus.
type Census struct {
	account *Account
	every   time.Duration
	keepers []Keeper
	asked   chan struct{}
	issuer  *Issuer
	next    int // whose turn it is to be asked

	mu    sync.Mutex
	tired map[string]bool // prefixes that are not listed any more, since too many keys of others have them
	lies  bool            // that a list was wrong was said
}

// NewCensus returns a census of keepers' keys. every is how often it is taken. It sends nothing. Fleet and device keys that
// the server does not list, and fewer than ten keys, are not counted.
func NewCensus(account *Account, every time.Duration, keepers []Keeper) *Census {
	return &Census{account: account, every: every, keepers: keepers, asked: make(chan struct{}, 1), tired: map[string]bool{},
		issuer: &Issuer{account: account, client: account.client, kind: key.User, gate: newLane(shared{}, account)}}
}

// Worthwhile reports whether there are enough keys for a census.
func Worthwhile(keys int) bool { return keys >= fewest }

// Ask makes the next census be taken soon. It never blocks.
func (c *Census) Ask() {
	select {
	case c.asked <- struct{}{}:
	default:
	}
}

// Run takes a census at each interval, and when somebody asks for it, until ctx is done.
func (c *Census) Run(ctx context.Context) {
	timer := time.NewTimer(c.every * 9 / 10)
	defer timer.Stop()
	again := censusPause
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.asked:
			c.settle(ctx)
		}
		pause := c.every * 9 / 10
		if err := c.take(ctx); err != nil && ctx.Err() == nil {
			c.account.log.Debug("the list of keys could not be read", "error", err)
			pause = min(pause, again)
			again = 2 * pause
		} else {
			again = censusPause
		}
		timer.Reset(pause)
	}
}

// settle waits until nobody asks any more: those who start together are to be listed together.
func (c *Census) settle(ctx context.Context) {
	for end := time.Now().Add(settleMost); time.Now().Before(end); {
		quiet := time.NewTimer(settleTime)
		select {
		case <-c.asked:
			quiet.Stop()
		case <-quiet.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// roll is the keys of one prefix that are looked for in a list.
type roll struct {
	prefix string
	userID int64
	wanted map[string]*entry // by name
	began  time.Time         // when the first page was asked for
}

// entry is one key of a roll.
type entry struct {
	keeper Keeper
	key    key.Key
	seen   bool
	row    row
}

// take takes a census.
func (c *Census) take(ctx context.Context) error {
	var err error
	for _, r := range c.rolls() {
		if len(c.keepers) < fewest || c.isTired(r.prefix) {
			continue // each asks for its own
		}
		if e := c.call(ctx, r); e != nil {
			err = errors.Join(err, e)
			continue
		}
		c.compare(ctx, r)
	}
	if err == nil {
		c.sample()
	}
	return err
}

// rolls sorts the keys that are held now by their prefix and account.
func (c *Census) rolls() []*roll {
	var list []*roll
	for _, keeper := range c.keepers {
		k, ok := keeper.Holds()
		if !ok || k.Given || k.Kind != key.User && !k.Seen || key.CheckPrefix(key.Prefix(k.Name)) != nil {
			continue
		}
		var of *roll
		for _, r := range list {
			if r.prefix == key.Prefix(k.Name) && r.userID == k.UserID {
				of = r
			}
		}
		if of == nil {
			of = &roll{prefix: key.Prefix(k.Name), userID: k.UserID, wanted: map[string]*entry{}}
			list = append(list, of)
		}
		of.wanted[k.Name] = &entry{keeper: keeper, key: k}
	}
	return list
}

func (c *Census) isTired(prefix string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tired[prefix]
}

// call reads the pages of a list.
func (c *Census) call(ctx context.Context, r *roll) error {
	foreign, after := 0, int64(0)
	for {
		rows, err := c.page(ctx, r, after)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			if !strings.HasPrefix(row.Name, r.prefix+"-") || row.ID <= after {
				return c.account.lostFilters()
			}
			after = row.ID
			if e := r.wanted[row.Name]; e == nil {
				foreign++
			} else if !e.seen {
				e.seen, e.row = true, row
			}
		}
		if foreign > 3*(pageRows+len(r.wanted)) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.tired[r.prefix] = true
			c.account.log.Warn("the account has many other keys whose names begin alike, so each key is asked for by itself, "+
				"which takes more requests; INJECTOR_NAME gives them names of their own", "prefix", r.prefix)
			return fmt.Errorf("%d keys of others are named %s-…", foreign, r.prefix)
		}
	}
}

// page reads the rows after an id. A server may send fewer than it was asked for, so that an empty page alone is the last.
func (c *Census) page(ctx context.Context, r *roll, after int64) ([]row, error) {
	ticket, err := c.account.turns.Wait(ctx, turn.Keep, 1)
	if err != nil {
		return nil, err
	}
	defer ticket.Done()
	if r.began.IsZero() {
		r.began = time.Now()
	}
	filter := fmt.Sprintf("startswith(name,%s) and id gt %d", literal(r.prefix+"-"), after)
	path := query("api_key", columns, filter, fmt.Sprintf("&$orderby=id%%20asc&$top=%d", pageRows))
	return c.issuer.rows(turn.With(ctx, ticket), key.Key{UserID: r.userID}, "list", "list the keys", path)
}

// compare tells the keepers what the list shows. One that has another key by now is not judged by it.
func (c *Census) compare(ctx context.Context, r *roll) {
	var missing []*entry
	for _, e := range r.wanted {
		now, ok := e.keeper.Holds()
		switch {
		case !ok || now.Name != e.key.Name:
		case e.seen && (e.key.ID == 0 || e.key.ID == e.row.ID) && (e.key.Seen || e.row.madeBy(e.key.Minted, madeSlack)):
			e.keeper.Sighted(merge(now, e.row), r.began)
		case e.seen: // a row of its name that does not prove to be its own
			e.keeper.Doubt(true)
		default:
			missing = append(missing, e)
		}
	}
	if len(missing) > max(mostAsked, len(r.wanted)/20) && c.listIsWrong(ctx, missing) {
		return
	}
	for _, e := range missing {
		e.keeper.Doubt(true)
	}
}

// listIsWrong asks a few of the keys that a list does not show, and reports whether the server accepts one.
func (c *Census) listIsWrong(ctx context.Context, missing []*entry) bool {
	for _, e := range missing[:mostAsked] {
		ticket, err := c.account.turns.Wait(ctx, turn.Check, 1)
		if err != nil {
			return true // nobody knows
		}
		err = c.issuer.Verify(turn.With(ctx, ticket), e.key)
		ticket.Done()
		if key.Is(err, key.Gone) {
			continue
		}
		if err == nil && !c.lies {
			c.lies = true
			c.account.log.Warn("the server lists only a part of the keys, and accepts others: its list says nothing",
				"not_listed", len(missing))
		}
		return true
	}
	return false
}

// sample lets a few keys be asked for themselves: what is listed may be refused all the same.
func (c *Census) sample() {
	for range min(samples, len(c.keepers)) {
		c.next = (c.next + 1) % len(c.keepers)
		c.keepers[c.next].Doubt(false)
	}
}
