package render

import (
	"maps"
	"slices"
)

// Preset is a template that comes with the program.
type Preset struct {
	About  string // what it is for
	File   string // not empty: the destination is a directory, and this the file in it
	source string
}

// presets are named instead of a template's file. What each consumer reads is from balena's own
// sources; see docs/apps.md.
var presets = map[string]Preset{
	"raw": {About: "the token and nothing else, for whatever reads a token file", source: `{{.Token}}`},
	"dotenv": {
		About:  "BALENA_TOKEN=… and BALENA_API_URL=…, for `--env-file` and dotenv libraries",
		source: "BALENA_TOKEN={{.Token}}\nBALENA_API_URL={{.URL}}\n",
	},
	"json": {About: "token, expiry, generation and name as JSON",
		source: `{"token":{{json .Token}},"expiry":{{json (rfc3339 .Expiry)}},"generation":{{.Generation}},` +
			`"name":{{json .Name}},"url":{{json .URL}}}` + "\n"},
	// The CLI and the Node SDK read the exact bytes of the file "token" in their data directory,
	// where the CLI also writes: it must be a directory that the app may write to.
	"balena-cli": {
		About:  "the data directory of the balena CLI and the Node SDK (BALENARC_DATA_DIRECTORY)",
		File:   "token",
		source: `{{.Token}}`,
	},
	"balena-python": {About: "the Python SDK's balena.cfg; the destination is the directory .balena in the app's home",
		File: "balena.cfg", source: "[Settings]\ntoken = {{.Token}}\n"},
	"netrc": {
		About:  "a .netrc line for the API's host, for basic authentication",
		source: "machine {{host .URL}} login {{.Name}} password {{.Token}}\n",
	},
	"header": {About: "an Authorization header, for `curl -H @FILE`", source: "Authorization: Bearer {{.Token}}\n"},
}

// Presets lists the presets' names.
func Presets() []string { return slices.Sorted(maps.Keys(presets)) }

// LookUpPreset returns a preset, and its template ready to use.
func LookUpPreset(name string) (Preset, *Template, bool) {
	p, ok := presets[name]
	if !ok {
		return p, nil, false
	}
	t := &Template{name: "preset " + name}
	parsed, err := parse(t.name, p.source, Functions{}.table())
	if err != nil {
		panic(err) // a mistake in this file, which the tests of each preset find
	}
	t.parsed = parsed
	return p, t, true
}
