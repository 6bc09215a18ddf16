package config

import (
	"path/filepath"
	"slices"
	"strings"
)

// places finds out where the state lies, and that no two things share a place.
func (p *parser) places(s *Settings, v variables) {
	s.OnDisk = !p.boolean("INJECTOR_REQUIRE_TMPFS", v.RequireTmpfs)
	taken, dirs := p.destinations(s), map[string]bool{}
	for path := range taken {
		dirs[filepath.Dir(path)] = true
	}
	s.StateDir = p.stateDir(s, v)
	if dirs[resolved(s.StateDir)] {
		p.fail("INJECTOR_STATE_DIR", "is an output's directory, where the app can read", "give a directory of its own")
	}
	if v.SessionCache != "" {
		s.SessionCache = p.absolute("INJECTOR_SESSION_CACHE", v.SessionCache)
		if dirs[filepath.Dir(resolved(s.SessionCache))] {
			p.fail("INJECTOR_SESSION_CACHE", "lies in an output's directory, where the app could read it",
				"put it where only the injector can read, such as the state directory")
		}
	}
	p.templateFiles(s)
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
func (p *parser) destinations(s *Settings) map[string]bool {
	taken, read := map[string]bool{}, p.readFiles(s)
	for _, k := range s.Keys {
		p.scope = p.of(k.Name)
		for _, o := range k.Outputs {
			for _, path := range []string{resolved(o.Path), resolved(o.Path) + ".json"} {
				if slices.Contains(read, path) {
					p.fail("INJECTOR_OUTPUT",
						"or INJECTOR_TEMPLATES write "+path+", which is read: a template, a credential or certificates",
						"give the output a path of its own")
					break
				}
				if taken[path] {
					p.fail("INJECTOR_OUTPUT", "and another output write "+path+" twice (PATH.json lies beside each output)",
						"give each output a path of its own")
					break
				}
				taken[path] = true
			}
		}
	}
	p.scope = p.of("")
	return taken
}

// readFiles are the files that the injector reads, and must not write.
func (p *parser) readFiles(s *Settings) []string {
	var list []string
	for _, path := range append(slices.Clone(s.Files), p.env.Get("INJECTOR_CA_FILE")) {
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
func (p *parser) stateDir(s *Settings, v variables) string {
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
	if !p.Supervising {
		return ""
	}
	return execStateDir(s)
}
