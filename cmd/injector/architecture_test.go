package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/balena-injector/injector/"

// architecture is what ARCHITECTURE.md says.
func architecture(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// ownImports returns which packages of this module each one imports, as the code has it.
func ownImports(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string][]string{}
	for list := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := list.Decode(&p); err == io.EOF {
			return imports
		} else if err != nil {
			t.Fatal(err)
		}
		own := []string{}
		for _, path := range p.Imports {
			if rest, ok := strings.CutPrefix(path, module); ok {
				own = append(own, rest)
			}
		}
		slices.Sort(own)
		imports[strings.TrimPrefix(p.ImportPath, module)] = own
	}
}

// TestThePackagesAreAsDescribed compares the table of packages with the imports.
func TestThePackagesAreAsDescribed(t *testing.T) {
	code := ownImports(t)
	quoted := regexp.MustCompile("`([^`]+)`")
	described := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9/]+)` \\| [^|]+ \\|([^|]*)\\|$").FindAllStringSubmatch(architecture(t), -1) {
		said := []string{}
		for _, name := range quoted.FindAllStringSubmatch(row[2], -1) {
			said = append(said, name[1])
		}
		described[row[1]] = true
		if got, ok := code[row[1]]; !ok || !slices.Equal(got, said) {
			t.Errorf("%s imports %v, and ARCHITECTURE.md says %v", row[1], got, said)
		}
	}
	for name := range code {
		if !described[name] {
			t.Errorf("ARCHITECTURE.md says nothing of %s", name)
		}
	}
}

// TestNoPackageLooksUp follows the imports to their ends: the configuration stands on neither the agent nor the wiring, and
// nothing below knows a command.
func TestNoPackageLooksUp(t *testing.T) {
	code := ownImports(t)
	var reaches func(from, to string) bool
	reaches = func(from, to string) bool {
		return slices.ContainsFunc(code[from], func(next string) bool { return next == to || reaches(next, to) })
	}
	for _, never := range [][2]string{
		{"internal/config", "agent"},
		{"internal/config", "internal/sidecar"},
		{"agent", "balena"},
		{"agent", "render"},
		{"agent", "internal/statedir"},
		{"balena", "agent"},
		{"render", "balena"},
	} {
		if reaches(never[0], never[1]) {
			t.Errorf("%s stands on %s", never[0], never[1])
		}
	}
	for name, own := range code {
		for _, other := range own {
			if strings.HasPrefix(other, "cmd/") {
				t.Errorf("%s imports the command %s", name, other)
			}
		}
	}
}

// TestBehavioursAreWhereTheTableSays looks for each function in its file.
func TestBehavioursAreWhereTheTableSays(t *testing.T) {
	found := regexp.MustCompile("`([a-z0-9_/]+\\.go)`: `([A-Za-z]+)`").FindAllStringSubmatch(architecture(t), -1)
	if len(found) < 20 {
		t.Errorf("only %d places are named", len(found))
	}
	for _, m := range found {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", m[1]), nil, 0)
		if err != nil {
			t.Error(err)
			continue
		}
		if !slices.ContainsFunc(file.Decls, func(d ast.Decl) bool { f, ok := d.(*ast.FuncDecl); return ok && f.Name.Name == m[2] }) {
			t.Errorf("there is no %s in %s", m[2], m[1])
		}
	}
}

// TestOnlyTheProcessReadsItsEnvironment looks for what reads it elsewhere: the rest is given it.
func TestOnlyTheProcessReadsItsEnvironment(t *testing.T) {
	for name := range ownImports(t) {
		dir := filepath.Join("..", "..", name)
		if strings.HasPrefix(name, "examples") || slices.Contains([]string{"internal/bench", "internal/crashpoint"}, name) {
			continue // programs of their own, and what is in the crash tests' binary alone
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			reads := false
			ast.Inspect(file, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if ok && slices.Contains([]string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}, s.Sel.Name) {
					pkg, ok := s.X.(*ast.Ident)
					reads = reads || ok && pkg.Name == "os"
				}
				return true
			})
			if main := name == "cmd/injector" && (e.Name() == "main.go" || e.Name() == "thrifty.go"); reads && !main {
				t.Errorf("%s/%s reads the process's environment", name, e.Name())
			}
		}
	}
}

var markdownLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinksLeadSomewhere follows the links of all pages to files here, and to their headings.
func TestLinksLeadSomewhere(t *testing.T) {
	pages, err := filepath.Glob("../../*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	followed := 0
	for _, page := range append(pages, more...) {
		raw, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range markdownLink.FindAllStringSubmatch(string(raw), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			followed++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := filepath.Join(filepath.Dir(page), file)
			if file == "" {
				target = page
			}
			text, err := os.ReadFile(target)
			if err != nil && !isDirectory(target) {
				t.Errorf("%s: %s leads nowhere", page, m[1])
			}
			if anchor != "" && !slices.Contains(anchors(string(text)), anchor) {
				t.Errorf("%s: %s has no such heading", page, m[1])
			}
		}
	}
	if followed < 50 {
		t.Errorf("%d links", followed)
	}
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// anchors are what a page's headings are called in links.
func anchors(page string) []string {
	var list []string
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "#") {
			text := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
			list = append(list, strings.ReplaceAll(regexp.MustCompile(`[^\p{L}\p{N}\- _]`).ReplaceAllString(text, ""), " ", "-"))
		}
	}
	return list
}
