package config

import (
	"strings"
	"time"

	"github.com/balena-injector/injector/render"
)

// Awaited reads which outputs to wait for, and for how long. The app's container has no credentials, and only this part
// of the configuration.
func Awaited(env Environ) ([]render.Output, time.Duration, error) {
	p := &parser{env: env, Options: Options{WithoutFiles: true}} // templates may lie in the injector's container only
	p.scope = p.of("")
	v := read[variables](p.scope)
	var s Settings
	p.templates(&s, v)
	var outputs []render.Output
	for _, name := range p.keyNames(v.Keys) {
		p.scope = p.of(name)
		k := Key{Name: name}
		p.outputs(&s, &k, read[keyVariables](p.scope))
		outputs = append(outputs, k.Outputs...)
	}
	limit := p.duration("INJECTOR_INIT_TIMEOUT", v.InitTimeout, time.Second)
	if len(p.problems) > 0 {
		return nil, 0, p.problems
	}
	return outputs, limit, nil
}

// withoutFiles makes raw entries of templates that are not presets: only their destinations matter.
func withoutFiles(templates string) string {
	entries := splitList(templates)
	for i, e := range entries {
		source, rest, ok := strings.Cut(e, ":")
		if _, _, preset := render.LookUpPreset(source); ok && !preset {
			entries[i] = "raw:" + rest
		}
	}
	return strings.Join(entries, ",")
}
