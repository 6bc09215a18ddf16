package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/balena-injector/injector/internal/config"
)

func runHelp(in *invocation) error {
	if len(in.args) == 1 {
		if c := findCommand(in.args[0]); c != nil {
			printCommand(in.stdout, c)
			return nil
		}
		return silentlyUnknown(in, in.args[0])
	}
	if len(in.args) > 1 {
		return in.flags("help", nil)
	}
	printUsage(in.stdout)
	_, _ = io.WriteString(
		in.stdout,
		"\nEnvironment variables (with their defaults; [_FILE]: or NAME_FILE, the path of a file that is watched):\n\n",
	)
	printVariables(in.stdout)
	return nil
}

func silentlyUnknown(in *invocation, name string) error {
	_, _ = fmt.Fprintf(in.stderr, "injector help: there is no command %q%s\n", name, suggestCommand(name))
	return silent(exitConfig)
}

func printCommand(w io.Writer, c *command) {
	_, _ = fmt.Fprintf(w, "injector %s\n\n%s.\n", strings.TrimSpace(c.name+" "+c.args), strings.ToUpper(c.does[:1])+c.does[1:])
	if c.details != "" {
		_, _ = fmt.Fprintf(w, "%s\n", strings.TrimPrefix(c.details, "\n"))
	}
	if c.asks {
		_, _ = fmt.Fprintf(w, "\nExit: %s\n", c.exits)
		return
	}
	_, _ = fmt.Fprintf(w, "\nExit: %s; %s\n", c.exits, commonExits)
}

const commonExits = "1 failed, 2 configuration, 3 credential refused, 4 keys left to expire"

func printUsage(w io.Writer) {
	_, _ = io.WriteString(w, "injector keeps one live balena API key in a file in memory for an app.\n\nUsage: injector COMMAND\n\n")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range commands() {
		_, _ = fmt.Fprintf(tw, "  %s\t%s\n", strings.TrimSpace(c.name+" "+c.args), c.does)
	}
	_ = tw.Flush()
	_, _ = fmt.Fprintf(w, "\nExit codes: 0 done; %s.\n", commonExits)
	_, _ = io.WriteString(
		w,
		"Needed are an account (BALENA_USERNAME and BALENA_PASSWORD) and a tmpfs at /secrets; `injector help` lists all variables.\n",
	)
}

// printVariables writes the reference of all variables.
func printVariables(w io.Writer) {
	for _, c := range config.Credentials() {
		suffix := "[_FILE]"
		if c.FileOnly {
			suffix = "_FILE"
		}
		_, _ = fmt.Fprintf(w, "  %s\n      %s\n", c.Name+suffix, c.Does)
	}
	_, _ = fmt.Fprintf(w, "  (%s)\n", config.OtherNames)
	for _, v := range config.Variables() {
		name := v.Name
		if v.Default != "" {
			name += "=" + v.Default
		}
		_, _ = fmt.Fprintf(w, "  %s\n      %s\n", name, v.Does)
		if v.Usual != "" {
			_, _ = fmt.Fprintf(w, "      default: %s\n", v.Usual)
		}
	}
}
