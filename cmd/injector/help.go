package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/words"
)

func runHelp(in *invocation) error {
	switch {
	case len(in.args) == 1:
		return in.helpOn(in.args[0])
	case len(in.args) > 1:
		return in.flags("help", nil)
	}
	printUsage(in.stdout)
	printVariables(in.stdout)
	return nil
}

// helpOn is the help on a command or a variable.
func (in *invocation) helpOn(name string) error {
	if c := findCommand(name); c != nil {
		printCommand(in.stdout, c)
		return nil
	}
	upper := strings.ToUpper(name)
	if v, _, ok := config.Describe(upper); ok {
		printVariable(in.stdout, v)
		return nil
	}
	what, like := "command", suggestCommand(name)
	if strings.Contains(name, "_") || name == upper {
		what = "variable"
		if _, near, _ := config.Describe(upper); near != "" {
			like = " (did you mean " + near + "?)"
		}
	}
	_, _ = fmt.Fprintf(in.stderr, "injector help: there is no %s %q%s; `injector help` lists all\n", what, name, like)
	return silent(exitConfig)
}

// helpWidth is how long a line of help may be: that of a terminal that nobody has made larger.
const helpWidth = 80

// paragraph writes a text as lines of helpWidth, each after an indent.
func paragraph(w io.Writer, indent int, text string) {
	pad := strings.Repeat(" ", indent)
	for _, line := range words.Wrap(text, helpWidth-indent) {
		_, _ = fmt.Fprintf(w, "%s%s\n", pad, line)
	}
}

func printCommand(w io.Writer, c *command) {
	_, _ = fmt.Fprintf(w, "injector %s\n\n", strings.TrimSpace(c.name+" "+c.args))
	paragraph(w, 0, sentence(c.does))
	if c.details != "" {
		paragraph(w, 0, c.details)
	}
	exits := c.exits
	if !c.asks {
		exits += "; " + commonExits
	}
	_, _ = fmt.Fprintln(w)
	paragraph(w, 0, "Exit: "+exits)
}

// sentence makes one of what begins with a small letter and has no end.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }

const commonExits = "1 failed, 2 configuration, 3 credential refused, 4 keys left to expire"

func printUsage(w io.Writer) {
	_, _ = io.WriteString(w, "injector keeps one live balena API key in a file in memory for an app.\n\nUsage: injector COMMAND\n\n")
	for _, c := range commands() {
		const column = 14
		for i, line := range words.Wrap(c.does, helpWidth-column) {
			name := ""
			if i == 0 {
				name = c.name
			}
			_, _ = fmt.Fprintf(w, "  %-*s%s\n", column-2, name, line)
		}
	}
	_, _ = fmt.Fprintln(w)
	paragraph(w, 0, "Exit codes: 0 done; "+commonExits+".")
	paragraph(w, 0, "Needed are an account (BALENA_USERNAME and BALENA_PASSWORD) and a tmpfs at /secrets. `injector help` lists all "+
		"variables, and `injector help NAME` explains a command or a variable.")
}

// printVariables writes the reference of all variables.
func printVariables(w io.Writer) {
	for _, g := range config.Groups() {
		_, _ = fmt.Fprintln(w)
		paragraph(w, 0, g.Title+":")
		for _, v := range g.Variables {
			_, _ = fmt.Fprintf(w, "  %s\n", nameAndDefault(v))
			paragraph(w, 6, v.Does)
			if v.Usual != "" {
				paragraph(w, 6, "default: "+v.Usual)
			}
		}
	}
	_, _ = fmt.Fprintln(w)
	paragraph(w, 0, "[_FILE]: or NAME_FILE, the path of a file that is watched. "+sentence(config.OtherNames))
}

func nameAndDefault(v config.Variable) string {
	name := v.Name
	if v.File != "" && v.File != v.Name {
		name += "[_FILE]"
	}
	if v.Default != "" {
		name += "=" + v.Default
	}
	return name
}

// printVariable is all that there is to say of one.
func printVariable(w io.Writer, v config.Variable) {
	_, _ = fmt.Fprintf(w, "%s\n\n", v.Name)
	paragraph(w, 0, sentence(v.Does))
	_, _ = fmt.Fprintln(w)
	switch {
	case v.Default != "":
		paragraph(w, 0, "Default: "+v.Default)
	case v.Usual != "":
		paragraph(w, 0, "Default: "+v.Usual)
	default:
		paragraph(w, 0, "Default: none")
	}
	if v.File != "" {
		paragraph(w, 0, "In a file: "+v.File+" is its path. One line break at its end does not count. It is read again when it changes.")
	}
	if v.Other != "" {
		others := slices.DeleteFunc(v.Names(), func(name string) bool { return name == v.Name || name == v.File })
		paragraph(w, 0, "Also called: "+strings.Join(others, ", "))
	}
	if v.PerKey {
		paragraph(w, 0, fmt.Sprintf("Of one key among several: %s, for INJECTOR_KEYS=deploy,…", v.OfKey("deploy")))
	}
	for _, g := range config.Groups() {
		for _, other := range g.Variables {
			if other.Name == v.Name {
				paragraph(w, 0, "See also: "+beside(g, v))
			}
		}
	}
}

// beside names what else is in a group.
func beside(g config.Group, v config.Variable) string {
	var list []string
	for _, other := range g.Variables {
		if other.Name != v.Name {
			list = append(list, other.Name)
		}
	}
	return strings.Join(list, ", ")
}
