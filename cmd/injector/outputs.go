package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/balena-injector/injector/internal/rootdir"
	"github.com/balena-injector/injector/render"
)

// noOutput as INJECTOR_OUTPUT leaves the raw file out.
const noOutput = "none"

// outputs finds out what files a key has: the raw token, and what templates make.
func (p *parser) outputs(s *settings, k *keySettings, v keyVariables, supervising bool) {
	mode, owner := p.mode("INJECTOR_OUTPUT_MODE", "is not a mode that can be used", v.OutputMode), p.owner(v.OutputOwner)
	path := v.Output
	switch {
	case path == "" && (supervising || v.Templates != ""):
		path = noOutput // the app has what it needs
	case path == "" && k.Key != "":
		path = "/secrets/" + k.Key
	case path == "":
		path = defaultOutput
	}
	if path != noOutput {
		if info, err := os.Stat(path); err == nil && info.IsDir() && !p.withoutFiles {
			p.fail("INJECTOR_OUTPUT", path+" is a directory", "give a file in it, such as "+filepath.Join(path, "balena-token"))
		}
		k.Outputs = append(k.Outputs, render.Output{Path: p.absolute("INJECTOR_OUTPUT", path), Mode: mode, Owner: owner})
	}
	if p.withoutFiles {
		v.Templates = withoutFiles(v.Templates)
	}
	for i, entry := range splitList(v.Templates) {
		if o, ok := p.templateOutput(s, i+1, entry); ok {
			if o.Owner = owner; o.Mode == 0 {
				o.Mode = mode
			}
			k.Outputs = append(k.Outputs, o)
		}
	}
	if len(k.Outputs) == 0 && !supervising && v.Templates == "" {
		p.fail("INJECTOR_OUTPUT", "is none, and there are no templates", "give a path, or INJECTOR_TEMPLATES")
	}
}

const defaultOutput = "/secrets/balena-token"

// templateOutput reads the nth entry of INJECTOR_TEMPLATES: SOURCE:DESTINATION[:MODE].
func (p *parser) templateOutput(s *settings, n int, entry string) (o render.Output, ok bool) {
	const variable = "INJECTOR_TEMPLATES"
	before := len(p.problems)
	parts := strings.Split(entry, ":")
	if strings.Contains(entry, ";") || strings.Contains(entry, " ") {
		p.fail(variable, fmt.Sprintf("has blanks or semicolons in entry %d", n), "separate entries with commas, and nothing else")
		return o, false
	}
	if len(parts) < 2 || len(parts) > 3 {
		p.fail(variable, fmt.Sprintf("lacks a part in entry %d, or has one too many", n),
			"give SOURCE:DESTINATION or SOURCE:DESTINATION:MODE, such as dotenv:/secrets/app.env:0440")
		return o, false
	}
	source, destination := parts[0], parts[1]
	o.Path = p.absolute(variable, destination)
	if preset, t, found := render.LookUpPreset(source); found {
		o.Template = t
		if preset.File != "" {
			o.Path, o.MakeDir = filepath.Join(o.Path, preset.File), true
		}
	} else if filepath.IsAbs(source) {
		o.Template = render.NewTemplate(source, s.Functions)
		if _, err := o.Template.Load(); err != nil {
			p.fail(variable, "has a template that cannot be used", err.Error())
		}
	} else {
		fix := "presets are " + strings.Join(render.Presets(), ", ")
		if near := nearest(source, render.Presets()); near != "" {
			fix = "did you mean " + near + "? Presets are " + strings.Join(render.Presets(), ", ")
		}
		p.fail(variable, fmt.Sprintf("names neither a preset nor an absolute path in entry %d", n), fix)
	}
	if len(parts) == 3 {
		o.Mode = p.mode(variable, fmt.Sprintf("has a mode in entry %d that cannot be used", n), parts[2])
	}
	return o, len(p.problems) == before
}

func splitList(text string) []string {
	var list []string
	for _, part := range strings.Split(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// templates finds out what templates may reach.
func (p *parser) templates(s *settings, v variables) {
	s.Functions.Env = splitList(v.TemplateEnv)
	for _, name := range s.Functions.Env {
		if ours(name) {
			p.fail("INJECTOR_TEMPLATE_ENV", "lists "+name+", which is the injector's own", "list the app's variables only")
		}
	}
	if v.TemplateFiles != "" {
		p.openFiles(s, p.absolute("INJECTOR_TEMPLATE_FILES", v.TemplateFiles))
	}
}

// openFiles opens the directory that templates may include files from: what is checked is what is used later, whatever
// takes the place of its path.
func (p *parser) openFiles(s *settings, path string) {
	if p.withoutFiles {
		return
	}
	dir, err := rootdir.Open(path)
	if err != nil {
		p.fail("INJECTOR_TEMPLATE_FILES", "cannot be opened", withoutPath(err).Error())
		return
	}
	s.Functions.Files = dir
}

// ours tells whether a variable is for the injector and nobody else: its settings and its
// credentials. The API's URL is no secret, and apps read it too.
func ours(name string) bool {
	if strings.HasPrefix(name, "INJECTOR_") || name == "BALENA_USERNAME" {
		return true
	}
	for _, s := range secretVariables {
		if name == s.name && name != userKeyVariable || name == s.name+"_FILE" {
			return true
		}
	}
	return false
}

// places finds out where the state lies, and that no two things share a place.
func (p *parser) places(s *settings, v variables, supervising bool) {
	s.OnDisk = !p.boolean("INJECTOR_REQUIRE_TMPFS", v.RequireTmpfs)
	taken, dirs := p.destinations(s), map[string]bool{}
	for path := range taken {
		dirs[filepath.Dir(path)] = true
	}
	s.StateDir = p.stateDir(s, v, supervising)
	if dirs[resolved(s.StateDir)] {
		p.fail("INJECTOR_STATE_DIR", "is an output's directory, where the app can read", "give a directory of its own")
	}
	if v.SessionCache != "" {
		s.SessionCache = p.absolute("INJECTOR_SESSION_CACHE", v.SessionCache)
		if dirs[filepath.Dir(resolved(s.SessionCache))] {
			p.fail("INJECTOR_SESSION_CACHE", "lies in an output's directory, where the app could read it", "put it where only the injector can read, such as the state directory")
		}
	}
	p.templateFiles(s)
}

// templateFiles checks that no template can include what only the injector may read.
func (p *parser) templateFiles(s *settings) {
	if s.Functions.Files == nil {
		return
	}
	dir := s.Functions.Files.Real()
	if within("/proc", dir) {
		p.fail("INJECTOR_TEMPLATE_FILES", "is a directory from which environ can be read", "give one that holds the app's files only")
		return
	}
	for _, private := range append([]string{s.StateDir, s.SessionCache, "/proc/self/environ"}, s.Files...) {
		if private != "" && (within(dir, private) || within(dir, resolved(private)) || within(resolved(private), dir)) {
			p.fail("INJECTOR_TEMPLATE_FILES", "is a directory from which "+private+" can be read", "keep what templates include apart from credentials and state")
			return
		}
	}
}

// resolved is a path without symbolic links, as far as it exists.
func resolved(path string) string {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		return to
	}
	if dir := filepath.Dir(path); dir != path {
		return filepath.Join(resolved(dir), filepath.Base(path))
	}
	return path
}

// destinations checks that no two outputs are one file, nor one file and what lies beside another.
func (p *parser) destinations(s *settings) map[string]bool {
	taken, read := map[string]bool{}, p.readFiles(s)
	for _, k := range s.Keys {
		p.scope = scope{k.Key}
		for _, o := range k.Outputs {
			for _, path := range []string{resolved(o.Path), resolved(o.Path) + ".json"} {
				if slices.Contains(read, path) {
					p.fail("INJECTOR_OUTPUT", "or INJECTOR_TEMPLATES write "+path+", which is read: a template, a credential or certificates", "give the output a path of its own")
					break
				}
				if taken[path] {
					p.fail("INJECTOR_OUTPUT", "and another output write "+path+" twice (PATH.json lies beside each output)", "give each output a path of its own")
					break
				}
				taken[path] = true
			}
		}
	}
	p.scope = scope{}
	return taken
}

// readFiles are the files that the injector reads, and must not write.
func (p *parser) readFiles(s *settings) []string {
	var list []string
	for _, path := range append(slices.Clone(s.Files), os.Getenv("INJECTOR_CA_FILE")) {
		if path != "" {
			list = append(list, resolved(path))
		}
	}
	for _, k := range s.Keys {
		for _, o := range k.Outputs {
			if o.Template != nil && o.Template.Path() != "" {
				list = append(list, resolved(o.Template.Path()))
			}
		}
	}
	return list
}

func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// stateDir is where the journal lies: beside the first output, unless it is configured.
func (p *parser) stateDir(s *settings, v variables, supervising bool) string {
	if v.StateDir != "" {
		return p.absolute("INJECTOR_STATE_DIR", v.StateDir)
	}
	for _, k := range s.Keys {
		for _, o := range k.Outputs {
			if dir := filepath.Dir(o.Path); !o.MakeDir {
				return filepath.Join(dir, ".injector")
			} else {
				return filepath.Join(filepath.Dir(dir), ".injector")
			}
		}
	}
	if !supervising {
		return ""
	}
	return execStateDir(s)
}

var variableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// tokenVariables are the variables that exec puts a key's token into.
func (p *parser) tokenVariables(text string) []string {
	names := splitList(text)
	if text == "" {
		names = []string{"BALENA_TOKEN"}
		if p.scope.key != "" {
			names = []string{"BALENA_TOKEN_" + strings.ToUpper(p.scope.key)}
		}
	}
	for i, name := range names {
		const fix = "give names of variables that the app alone reads, such as BALENA_TOKEN"
		switch {
		case !variableForm.MatchString(name):
			p.fail("INJECTOR_TOKEN_VARIABLES", fmt.Sprintf("has an entry %d that is not a variable's name", i+1), fix)
		case ours(name) || meansMore(name):
			p.fail("INJECTOR_TOKEN_VARIABLES", "names "+name+", which has a meaning of its own", fix)
		}
	}
	if len(names) == 0 {
		p.fail("INJECTOR_TOKEN_VARIABLES", "names none", "give names of variables that the app reads, such as BALENA_TOKEN")
	}
	return names
}

// meansMore tells whether a variable has a meaning for the system, a shell or a library, which would show the token
// in an error or come to grief with it.
func meansMore(name string) bool {
	upper := strings.ToUpper(name)
	return strings.HasPrefix(upper, "LD_") || strings.HasPrefix(upper, "PYTHON") || strings.HasPrefix(upper, "SSL_CERT_") || strings.HasSuffix(upper, "_PROXY") ||
		slices.Contains([]string{"PATH", "HOME", "SHELL", "IFS", "ENV", "BASH_ENV", "PWD", "USER", "TMPDIR", "LANG", "TZ", "GODEBUG", "GOGC", "GOMEMLIMIT", "NODE_OPTIONS", "BALENA_API_URL"}, upper)
}

// child checks what exec needs beyond the rest.
func (p *parser) child(s *settings) {
	var seen []string
	for _, k := range s.Keys {
		for _, name := range k.Variables {
			if slices.Contains(seen, name) {
				p.scope = scope{k.Key}
				p.fail("INJECTOR_TOKEN_VARIABLES", "names "+name+" a second time", "name it once, and for one key")
			}
			seen = append(seen, name)
		}
	}
	p.scope = scope{}
	if s.ShutdownDelay > 0 {
		s.ShutdownDelay = 0
		s.Warnings = append(s.Warnings, "INJECTOR_SHUTDOWN_DELAY is not used by exec: when the keys are revoked the command has ended")
	}
	if s.KillAfter >= s.ShutdownTimeout {
		p.fail("INJECTOR_KILL_AFTER", "leaves no time to revoke before INJECTOR_SHUTDOWN_TIMEOUT ("+short(s.ShutdownTimeout)+")", "raise the timeout, and the platform's own grace period above that")
	}
}

// signals that a rotation or a notification may send, by name.
func (p *parser) rotation(s *settings, text string) {
	switch text {
	case "restart":
		s.RestartChild = true
	case "none":
	default:
		sig, ok := signalNamed(text)
		if !ok {
			p.fail("INJECTOR_ON_ROTATION", "is neither restart nor none nor a signal", "give restart, none, or a signal such as HUP")
		}
		s.SignalChild = sig
	}
}
