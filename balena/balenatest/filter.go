package balenatest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// condition is a filter, or a part of one: what must hold for a row. The hints say which rows alone can match, so that
// ten thousand keys need not all be looked at; nil: any.
type condition struct {
	holds func(fields) bool
	ids   []int64
	names []string
	above int64 // greater ids alone can match
}

// parseFilter reads a $filter of the forms that clients of this API were seen to write: comparisons of a column with a
// number, a string or a time, lists, startswith, and these joined by and, or and parentheses.
func parseFilter(text string) (condition, error) {
	p := &filterParser{rest: text}
	c, err := p.either()
	if err == nil && strings.TrimSpace(p.rest) != "" {
		err = fmt.Errorf("%q is left", p.rest)
	}
	return c, err
}

type filterParser struct{ rest string }

// take removes a word or sign from the front, and reports whether it was there.
func (p *filterParser) take(what string) bool {
	rest, ok := strings.CutPrefix(p.rest, what)
	if ok {
		p.rest = rest
	}
	return ok
}

// either reads conditions of which one must hold.
func (p *filterParser) either() (condition, error) {
	c, err := p.all()
	for err == nil && p.take(" or ") {
		var next condition
		if next, err = p.all(); err == nil {
			c = condition{holds: anyOf(c.holds, next.holds)}
		}
	}
	return c, err
}

func anyOf(a, b func(fields) bool) func(fields) bool {
	return func(f fields) bool { return a(f) || b(f) }
}

// all reads conditions that must all hold.
func (p *filterParser) all() (condition, error) {
	c, err := p.one()
	for err == nil && p.take(" and ") {
		var next condition
		if next, err = p.one(); err == nil {
			c = both(c, next)
		}
	}
	return c, err
}

func both(a, b condition) condition {
	c := condition{holds: func(f fields) bool { return a.holds(f) && b.holds(f) }, ids: a.ids, names: a.names, above: max(a.above, b.above)}
	if c.ids == nil {
		c.ids = b.ids
	}
	if c.names == nil {
		c.names = b.names
	}
	return c
}

// one reads a single condition, or a filter in parentheses.
func (p *filterParser) one() (condition, error) {
	if p.take("(") {
		c, err := p.either()
		if err == nil && !p.take(")") {
			err = fmt.Errorf("no closing parenthesis before %q", p.rest)
		}
		return c, err
	}
	// This is how the SDK asks for what the account may use; others' rows are not here anyway.
	if p.take("is_directly_accessible_by__user/any(dau:1 eq 1)") {
		return condition{holds: func(fields) bool { return true }}, nil
	}
	if p.take("startswith(") {
		return p.startsWith()
	}
	column := p.name()
	switch {
	case column == "":
		return condition{}, fmt.Errorf("no column before %q", p.rest)
	case p.take(" in ("):
		return p.in(column)
	}
	for _, op := range []string{"eq", "ne", "gt", "ge", "lt", "le"} {
		if p.take(" " + op + " ") {
			return p.compare(column, op)
		}
	}
	return condition{}, fmt.Errorf("no comparison before %q", p.rest)
}

// name reads the name of a column.
func (p *filterParser) name() string {
	end := strings.IndexFunc(p.rest, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') })
	if end < 0 {
		end = len(p.rest)
	}
	name := p.rest[:end]
	p.rest = p.rest[end:]
	return name
}

// value reads a number or a string.
func (p *filterParser) value() (any, error) {
	if !p.take("'") {
		end := strings.IndexFunc(p.rest, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(p.rest)
		}
		n, err := strconv.ParseInt(p.rest[:end], 10, 64)
		p.rest = p.rest[end:]
		return n, err
	}
	var text strings.Builder
	for {
		part, rest, ok := strings.Cut(p.rest, "'")
		if !ok {
			return nil, fmt.Errorf("a string without end at %q", p.rest)
		}
		text.WriteString(part)
		if p.rest = rest; !p.take("'") {
			return text.String(), nil
		}
		text.WriteByte('\'') // two of them are one in a string
	}
}

func (p *filterParser) startsWith() (condition, error) {
	column := p.name()
	if !p.take(",") {
		return condition{}, fmt.Errorf("no comma before %q", p.rest)
	}
	v, err := p.value()
	start, ok := v.(string)
	if err != nil || !ok || !p.take(")") {
		return condition{}, fmt.Errorf("startswith is not well formed before %q", p.rest)
	}
	return condition{holds: func(f fields) bool { s, ok := f[column].(string); return ok && strings.HasPrefix(s, start) }}, nil
}

// in reads a list; an empty one is refused.
func (p *filterParser) in(column string) (condition, error) {
	var list []any
	for {
		v, err := p.value()
		if err != nil {
			return condition{}, err
		}
		if list = append(list, v); !p.take(",") {
			break
		}
	}
	if !p.take(")") {
		return condition{}, fmt.Errorf("no closing parenthesis before %q", p.rest)
	}
	set := make(map[any]bool, len(list))
	for _, v := range list {
		set[v] = true
	}
	c := condition{holds: func(f fields) bool { return set[f[column]] }}
	c.hint(column, list)
	return c, nil
}

// hint notes which rows alone can match.
func (c *condition) hint(column string, values []any) {
	for _, v := range values {
		switch v := v.(type) {
		case int64:
			if column == "id" {
				c.ids = append(c.ids, v)
			}
		case string:
			if column == "name" {
				c.names = append(c.names, v)
			}
		}
	}
}

func (p *filterParser) compare(column, op string) (condition, error) {
	v, err := p.value()
	if err != nil {
		return condition{}, err
	}
	wanted := map[string][]int{"eq": {0}, "gt": {1}, "ge": {0, 1}, "lt": {-1}, "le": {-1, 0}, "ne": {-1, 1}}[op]
	c := condition{holds: func(f fields) bool {
		order, ok := compare(f[column], v)
		return ok && slices.Contains(wanted, order)
	}}
	if op == "eq" {
		c.hint(column, []any{v})
	}
	if n, ok := v.(int64); ok && column == "id" && op == "gt" {
		c.above = n
	}
	return c, nil
}

// compare compares a column's value with one of a filter; ok reports whether they can be: nothing compares with null.
func compare(is, with any) (order int, ok bool) {
	switch with := with.(type) {
	case int64:
		if n, is := is.(int64); is {
			return sign(n - with), true
		}
	case string:
		text, isText := is.(string)
		if !isText {
			return 0, false
		}
		a, errA := time.Parse(time.RFC3339, text)
		b, errB := time.Parse(time.RFC3339, with)
		if errA == nil && errB == nil {
			return a.Compare(b), true
		}
		return strings.Compare(text, with), true
	}
	return 0, false
}

func sign(n int64) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}
