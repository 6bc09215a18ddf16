package config

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/balena-injector/injector/internal/rootdir"
	"github.com/balena-injector/injector/internal/words"
	"github.com/balena-injector/injector/render"
)

// templateOutput reads the nth entry of INJECTOR_TEMPLATES: SOURCE:DESTINATION[:MODE].
func (p *parser) templateOutput(s *Settings, n int, entry string) (o render.Output, ok bool) {
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
		if near := words.Nearest(source, render.Presets()); near != "" {
			fix = "did you mean " + near + "? Presets are " + strings.Join(render.Presets(), ", ")
		}
		p.fail(variable, fmt.Sprintf("names neither a preset nor an absolute path in entry %d", n), fix)
	}
	if len(parts) == 3 {
		o.Mode = p.mode(variable, fmt.Sprintf("has a mode in entry %d that cannot be used", n), parts[2])
	}
	return o, len(p.problems) == before
}

// templates finds out what templates may reach.
func (p *parser) templates(s *Settings, v variables) {
	s.Functions.Env, s.Functions.Lookup = splitList(v.TemplateEnv), p.env.Lookup
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
func (p *parser) openFiles(s *Settings, path string) {
	if p.WithoutFiles {
		return
	}
	dir, err := rootdir.Open(path)
	if err != nil {
		p.fail("INJECTOR_TEMPLATE_FILES", "cannot be opened", rootdir.WithoutPath(err).Error())
		return
	}
	s.Functions.Files = dir
}

// templateFiles checks that no template can include what only the injector may read.
func (p *parser) templateFiles(s *Settings) {
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
			p.fail("INJECTOR_TEMPLATE_FILES", "is a directory from which "+private+" can be read",
				"keep what templates include apart from credentials and state")
			return
		}
	}
}
