// Package tally counts what tests have shown, over all tests of a package, for the table at the
// end of `make prove`. Only tests use it.
package tally

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

// Prefix begins the lines that Run prints: PREFIX NAME=COUNT.
const Prefix = "tally:"

var (
	mu     sync.Mutex
	counts = map[string]int64{}
)

// Add counts n more of something. Adding 0 says that it was looked for.
func Add(name string, n int) {
	mu.Lock()
	defer mu.Unlock()
	counts[name] += int64(n)
}

// Run runs a package's tests, prints what they counted, and returns the exit code.
func Run(m *testing.M) int {
	code := m.Run()
	mu.Lock()
	defer mu.Unlock()
	var names []string
	for name := range counts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Println(Prefix, name+"="+fmt.Sprint(counts[name]))
	}
	return code
}
