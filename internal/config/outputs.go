package config

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/balena-injector/injector/render"
)

// noOutput as INJECTOR_OUTPUT leaves the raw file out.
const noOutput = "none"

// outputs finds out what files a key has: the raw token, and what templates make.
func (p *parser) outputs(s *Settings, k *Key, v keyVariables) {
	mode, owner := p.mode("INJECTOR_OUTPUT_MODE", "is not a mode that can be used", v.OutputMode), p.owner(v.OutputOwner)
	path := v.Output
	switch {
	case path == "" && (p.Supervising || v.Templates != ""):
		path = noOutput // the app has what it needs
	case path == "" && k.Name != "":
		path = "/secrets/" + k.Name
	case path == "":
		path = DefaultOutput
	}
	if path != noOutput {
		if info, err := os.Stat(path); err == nil && info.IsDir() && !p.WithoutFiles {
			p.fail("INJECTOR_OUTPUT", path+" is a directory", "give a file in it, such as "+filepath.Join(path, "balena-token"))
		}
		k.Outputs = append(k.Outputs, render.Output{Path: p.absolute("INJECTOR_OUTPUT", path), Mode: mode, Owner: owner})
	}
	if p.WithoutFiles {
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
	if len(k.Outputs) == 0 && !p.Supervising && v.Templates == "" {
		p.fail("INJECTOR_OUTPUT", "is none, and there are no templates", "give a path, or INJECTOR_TEMPLATES")
	}
}

// DefaultOutput is the file that the app reads if nothing else is said.
const DefaultOutput = "/secrets/balena-token"

func splitList(text string) []string {
	var list []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// ours reports whether a variable is for the injector and nobody else: its settings and its
// credentials. The API's URL is not a secret, and apps read it too.
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
