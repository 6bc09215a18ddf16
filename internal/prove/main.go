// Command prove runs the long versions of the tests that show the promises, and ends with a table
// of what they counted. It fails if a test does, if a count that must be zero is not, or if one
// that must not be zero is.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/balena-injector/injector/internal/tally"
)

// runs are the arguments of `go test`, one run a line.
var runs = []string{
	"./agent -run TestFaultMatrix|TestDaysOfRandomFailures|TestNoSecretInTheLog|TestManyAgents|TestOutagesThatEndInTime -long -timeout 60m",
	"./agent -run TestManyKeysOfOneAccount|TestAnOutageOfTheAccount|TestFaultMatrixOfBatches -long -timeout 90m",
	"./cmd/injector -run TestCrashMatrix|TestStopMatrix|TestAPanicShowsNoSecret|TestNothingShowsASecret -timeout 20m",
	"./render -run TestReadersSeeWholeValues",
}

// fuzzing gives every fuzz target many inputs.
const fuzzing = "tools/fuzz.sh 20000"

func fuzz() error {
	cmd := exec.Command("sh", strings.Fields(fuzzing)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// table is what is printed at the end, in this order.
var table = []struct {
	name string
	zero bool // must be zero; the others must not
}{
	{name: "cells of the fault matrix"}, {name: "cells of the fault matrix of batches"},
	{name: "kills at file work or requests"}, {name: "stops at file work or requests"},
	{name: "panics"},
	{name: "agents in one world"}, {name: "rotations"}, {name: "virtual days"}, {name: "reads by apps"}, {name: "secrets looked for"},
	{name: "bad reads", zero: true}, {name: "keys leaked", zero: true}, {name: "secrets seen", zero: true},
}

func main() { os.Exit(prove()) }

func prove() int {
	counts := map[string]int64{}
	failed := 0
	for _, run := range append(runs, fuzzing) {
		began := time.Now()
		work := func() error { return test(strings.Fields(run), counts) }
		if run == fuzzing {
			work = fuzz
		}
		verdict := "ok"
		if err := work(); err != nil {
			verdict = "FAILED: " + err.Error()
			failed++
		}
		fmt.Printf("%-7s %s  (%v)\n", verdict, run, time.Since(began).Round(time.Second))
	}
	counts["virtual days"] = counts["virtual minutes"] / (24 * 60)
	fmt.Println()
	for _, row := range table {
		n, counted := counts[row.name]
		note := ""
		if !counted || row.zero != (n == 0) {
			note = "  <- wrong"
			failed++
		}
		fmt.Printf("%10d  %s%s\n", n, row.name, note)
	}
	if failed > 0 {
		fmt.Printf("\n%d of these are not as they should be\n", failed)
		return 1
	}
	return 0
}

// test runs `go test` and adds what it counted. What failed is shown.
func test(args []string, counts map[string]int64) error {
	cmd := exec.Command("go", append([]string{"test", "-count", "1", "-v"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	var tail []string
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text, found := strings.CutPrefix(lines.Text(), tally.Prefix+" ")
		if name, value, ok := strings.Cut(text, "="); found && ok {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return err
			}
			counts[name] += n
			continue
		}
		if tail = append(tail, lines.Text()); len(tail) > 100 {
			tail = tail[1:]
		}
	}
	if err := cmd.Wait(); err != nil {
		fmt.Println(strings.Join(tail, "\n"))
		return err
	}
	return nil
}
