package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/balena-injector/injector/balena/balenatest"
)

const logFile = "../../docs/log.md"

// logFields says what each field of the log is. A duration has its unit in its name in JSON: took is took_seconds there.
var logFields = map[string]struct{ shape, means string }{
	"address":           {"text", "TCP address of the probes and metrics"},
	"after":             {"duration", "how long the step had failed"},
	"after_failures":    {"number", "how many tries of the step had failed"},
	"ahead":             {"duration", "how far this machine's clock is ahead of balena's; negative if it is behind"},
	"api":               {"text", "URL of the balena API"},
	"at_most":           {"duration", "how long what begins here may take"},
	"because":           {"text", "why it happens"},
	"command":           {"text", `the injector's command; of what ` + "`" + `exec` + "`" + ` runs, its program`},
	"count":             {"number", "how many keys"},
	"delay":             {"duration", "how long the key lives on"},
	"directory":         {"text", "path"},
	"error":             {"text", "what went wrong"},
	"exit_code":         {"number", `of the command that ` + "`" + `exec` + "`" + ` ran`},
	"expires":           {"time", "when the key expires, by balena's clock; of a session, when it ends"},
	"failed_starts":     {"number", "starts in a row that failed after they had minted"},
	"fix":               {"text", "what would help"},
	"for":               {"duration", "how long it waits"},
	"from":              {"text", "the key's health before"},
	"generation":        {"number", "which publication it is, as in the .json beside the output"},
	"id":                {"number", "the key's id at balena"},
	"key":               {"text", "its name in INJECTOR_KEYS, where that names several"},
	"every":             {"duration", "between two requests that try for all keys of an account"},
	"not_listed":        {"number", "how many keys a list of the server's does not show"},
	"prefix":            {"text", "with which the names of keys begin: INJECTOR_NAME"},
	"keys":              {"number", "how many keys"},
	"kind":              {"text", "user, fleet or device"},
	"max_ttl":           {"duration, or text", "how old a key may get before another replaces it, or \"never\""},
	"name":              {"text", "the key's name at balena"},
	"next_extension_in": {"duration", "when the key will be extended or replaced"},
	"next_try_in":       {"duration", "when the step is tried again"},
	"old_key_lives_for": {"duration", "how long the key that was replaced works yet"},
	"old_name":          {"text", "its name at balena"},
	"outputs":           {"text", "paths of the outputs, with commas between them"},
	"pid":               {"number", `of the command that ` + "`" + `exec` + "`" + ` runs`},
	"pids":              {"text", "of what that command has left behind"},
	"reason":            {"text", "what the server said"},
	"session_expires":   {"time", "when the session ends, by balena's clock"},
	"signal":            {"text", "its name"},
	"state":             {"text", "of the key in the journal"},
	"target":            {"text", "who is notified"},
	"to":                {"text", "the key's health now"},
	"token_expires_in":  {"duration", "when the token expires that the app reads"},
	"took":              {"duration", "how long it took"},
	"ttl":               {"duration", "how far ahead expiries are set"},
	"until":             {"time", "when it ends, by this machine's clock"},
	"version":           {"text", "the injector's"},
}

// logMethods are the levels by the logger's methods. What only DEBUG shows is no promise.
var logMethods = map[string]string{"Info": "INFO", "Warn": "WARN", "Error": "ERROR"}

// logSource is what the source says of the log.
type logSource struct {
	fields   map[string]bool
	messages map[string]map[string]bool // by level
}

// readLogSource collects messages and fields from the calls that log, and from what is put together for them.
func readLogSource(t *testing.T) logSource {
	t.Helper()
	src := logSource{map[string]bool{}, map[string]map[string]bool{"INFO": {}, "WARN": {}, "ERROR": {}}}
	for _, dir := range []string{"agent", "balena", "cmd/injector", "internal", "render", "settle"} {
		err := filepath.WalkDir(filepath.Join("../..", dir), func(path string, d fs.DirEntry, err error) error {
			skip := slices.ContainsFunc([]string{"node_modules", "internal/bench", "internal/prove", "balenatest"},
				func(part string) bool { return strings.Contains(path, part) })
			if err != nil || skip || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err == nil {
				ast.Inspect(file, src.visit)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return src
}

func (s logSource) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.CompositeLit: // args := []any{"error", err}
		if list, ok := n.Type.(*ast.ArrayType); ok && isIdent(list.Elt, "any") {
			s.pairs(n.Elts)
		}
	case *ast.AssignStmt: // msg := "minted a key"
		if text := message(n.Rhs[0]); isIdent(n.Lhs[0], "msg") && text != "" {
			s.messages["INFO"][text] = true
		}
	case *ast.CallExpr:
		s.call(n)
	}
	return true
}

func (s logSource) call(n *ast.CallExpr) {
	if isIdent(n.Fun, "append") && len(n.Args) > 2 {
		s.pairs(n.Args[1:])
		return
	}
	method, ok := n.Fun.(*ast.SelectorExpr)
	if !ok || len(n.Args) == 0 {
		return
	}
	on := lastName(method.X)
	level, logs := logMethods[method.Sel.Name]
	switch {
	case on == "slog" && slices.Contains([]string{"String", "Int", "Duration", "Any", "Bool", "Time"}, method.Sel.Name):
		s.pairs(n.Args)
	case strings.EqualFold(on, "log") && method.Sel.Name == "With":
		s.pairs(n.Args)
	case strings.EqualFold(on, "log") && (logs || method.Sel.Name == "Debug"):
		if text := message(n.Args[0]); logs && text != "" {
			s.messages[level][text] = true
		}
		s.pairs(n.Args[1:])
	}
}

var fieldName = regexp.MustCompile(`^[a-z][a-z_]*$`)

// pairs are names and values, with slog's own pairs between them.
func (s logSource) pairs(args []ast.Expr) {
	for i := 0; i < len(args)-1; i++ {
		if name := message(args[i]); fieldName.MatchString(name) {
			s.fields[name] = true
			i++
		}
	}
}

func isIdent(e ast.Expr, name string) bool { return lastName(e) == name }

func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// message is a text in the source, with … for what is known when it runs only.
func message(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, _ := strconv.Unquote(e.Value)
		return text
	case *ast.BinaryExpr:
		left, right := message(e.X), message(e.Y)
		if left == "" && right == "" {
			return ""
		}
		if left == "" {
			left = "…"
		}
		if right == "" {
			right = "…"
		}
		return left + right
	}
	return ""
}

// TestLogPage compares the page of the log's fields and messages with the source.
func TestLogPage(t *testing.T) {
	src := readLogSource(t)
	for name := range src.fields {
		if logFields[name].means == "" {
			t.Errorf("the field %s is not described", name)
		}
	}
	for name := range logFields {
		if !src.fields[name] {
			t.Errorf("the field %s is described, and in no log", name)
		}
	}
	comparePage(t, logFile, logPage(src))
}

// comparePage compares a page that is made from the code with what is there, or writes it.
func comparePage(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s does not say what the code does: run the tests of this package with -update", path)
	}
}

func logPage(src logSource) string {
	var out strings.Builder
	out.WriteString(`# The log

One line for each change of state, on standard error: what happened, and when the next thing will. INJECTOR_LOG_FORMAT=text is
for people, json for programs; INJECTOR_LOG_LEVEL leaves lines out. No line has a secret in it. This page is made from the code.

## Fields

Each line has ` + "`time` (RFC 3339), `level` (DEBUG, INFO, WARN, ERROR) and `msg`" + `. A field that is not there is not
known, or means nothing here. Points in time are RFC 3339. A duration is text such as 1m30s for people; in JSON it is a number of
seconds, and its name ends in _seconds: took=1m30s is ` + "`\"took_seconds\":90`" + `.

| field | shape | meaning |
|---|---|---|
`)
	for _, name := range slices.Sorted(maps.Keys(logFields)) {
		field := logFields[name]
		_, _ = fmt.Fprintf(&out, "| `%s` | %s | %s |\n", name, field.shape, field.means)
	}
	out.WriteString("\n## Messages\n\n" +
		"Their words may get better; alerts belong on [metrics](metrics.md). `…` is a step, an error or a name.\n")
	for _, level := range []string{"ERROR", "WARN", "INFO"} {
		_, _ = fmt.Fprintf(&out, "\n### %s\n\n", level)
		for _, text := range slices.Sorted(maps.Keys(src.messages[level])) {
			_, _ = fmt.Fprintf(&out, "- %s\n", text)
		}
	}
	return out.String()
}

// TestTheLogHasTheFieldsThatAreDescribed follows a life whose log is JSON, with an outage in it.
func TestTheLogHasTheFieldsThatAreDescribed(t *testing.T) {
	t.Parallel()
	s := newStage(t, balenatest.Options{})
	s.set("INJECTOR_LOG_FORMAT", "json")
	s.set("INJECTOR_LOG_LEVEL", "debug")
	p := s.startReady()
	s.server.DeleteKey(s.server.Live()[0].ID)
	s.server.Fail(balenatest.Fault{Kind: "mint", Status: 503, Times: 1})
	p.signal(syscall.SIGHUP)
	s.eventually("another key", func() bool { return len(s.server.Live()) == 1 })
	s.ready()
	p.stop()
	lines := 0
	for line := range strings.Lines(p.stderr.String()) {
		lines++
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		for name, value := range fields {
			wantDescribed(t, name, value)
		}
	}
	if lines < 10 {
		t.Errorf("%d lines", lines)
	}
}

func wantDescribed(t *testing.T, name string, value any) {
	t.Helper()
	if slices.Contains([]string{"time", "level", "msg"}, name) {
		return
	}
	base, timed := strings.CutSuffix(name, "_seconds")
	shape := logFields[base].shape
	ok := false
	switch value.(type) {
	case string:
		ok = !timed && (strings.HasPrefix(shape, "text") || strings.HasPrefix(shape, "time") || strings.HasSuffix(shape, "or text"))
	case float64:
		ok = timed && strings.HasPrefix(shape, "duration") || !timed && strings.HasPrefix(shape, "number")
	case bool:
		ok = shape == "true or false"
	}
	if !ok {
		t.Errorf("%s has the value %v, and is described as %q", name, value, shape)
	}
}
