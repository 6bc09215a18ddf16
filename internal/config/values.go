package config

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/balena-injector/injector/internal/rootdir"
	"github.com/balena-injector/injector/internal/words"
	"github.com/balena-injector/injector/render"
)

// Problem is one thing that is wrong with the configuration.
type Problem struct{ Variable, Rule, Fix string }

// Problems is all that is wrong with the configuration, as an error.
type Problems []Problem

// Error lists every problem on a line of its own.
func (c Problems) Error() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d configuration %s:", len(c), plural(len(c), "problem"))
	for _, p := range c {
		fmt.Fprintf(&out, "\n  %s %s", p.Variable, p.Rule)
		if p.Fix != "" {
			out.WriteString(": " + p.Fix)
		}
	}
	return out.String()
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

const maxDuration = 365 * 24 * time.Hour

// parser collects problems while it reads.
type parser struct {
	Options
	env      Environ
	scope    scope // whose variables are read
	problems Problems
	unusable []string // variables of which it has been said that their text is wrong
}

// fail notes a problem with a variable, under the name that it has been set with. It is not told the value: anything can
// have been pasted into the wrong variable, and the log is read by others.
func (p *parser) fail(variable, rule, fix string) {
	q := Problem{p.scope.named(variable), rule, fix} // what is not set anywhere keeps its shared name
	if slices.Contains(p.unusable, q.Variable) {
		return // the rest follows from that
	}
	if !slices.Contains(p.problems, q) { // what is shared is read for each key
		p.problems = append(p.problems, q)
	}
}

func (p *parser) duration(variable, text string, least time.Duration) time.Duration {
	d, err := parseDuration(text)
	switch {
	case err != nil:
		p.fail(variable, "is not a duration", "give a number with a unit, such as 90s, 15m, 1h or 7d")
	case d < least || d > maxDuration:
		p.fail(variable, "is "+words.Short(d), fmt.Sprintf("give %s to 365d", words.Short(least)))
	}
	return d
}

func (p *parser) number(variable, text string, least, most int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		p.fail(variable, "is not a number from "+strconv.Itoa(least)+" to "+strconv.Itoa(most), "give one, without a unit")
	}
	return n
}

// parseDuration reads Go's durations, and days before them.
func parseDuration(text string) (time.Duration, error) {
	days, rest, ok := strings.Cut(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	d := time.Duration(n) * 24 * time.Hour
	if err != nil || rest == "" {
		return d, err
	}
	more, err := time.ParseDuration(rest)
	return d + more, err
}

func (p *parser) boolean(variable, text string) bool {
	b, err := strconv.ParseBool(text)
	if err != nil {
		p.fail(variable, "is neither true nor false", "give true or false")
	}
	return b
}

func (p *parser) absolute(variable, path string) string {
	if !filepath.IsAbs(path) || strings.HasSuffix(path, "/") {
		p.fail(variable, "is not the absolute path of a file", "start it with / and end it with a name")
	}
	return filepath.Clean(path)
}

func (p *parser) mode(variable, rule, text string) fs.FileMode {
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || len(text) < 3 || n > 0o777 || n&0o400 == 0 || n&0o002 != 0 {
		p.fail(variable, rule, "give three or four octal digits with which the owner can read and others cannot write, such as 0440")
	}
	return fs.FileMode(n)
}

func (p *parser) owner(text string) render.Owner {
	if text == "" {
		return render.Keep
	}
	uid, gid, ok := strings.Cut(text, ":")
	id := func(s string) int {
		if s == "" {
			return -1
		}
		n, err := strconv.ParseUint(s, 10, 31)
		ok = ok && err == nil
		return int(n)
	}
	owner := render.Owner{UID: id(uid), GID: id(gid)}
	if !ok {
		p.fail("INJECTOR_OUTPUT_OWNER", "is not an owner", "give numbers as uid:gid, such as 1000:1000 or :1000")
	}
	return owner
}

// readFile reads a small file, with errors for people.
func readFile(path string) ([]byte, error) {
	data, err := rootdir.ReadFile(path, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", path, rootdir.WithoutPath(err))
	}
	return data, nil
}

// form returns a regular expression that is compiled when it is needed first: most starts need few.
func form(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}
