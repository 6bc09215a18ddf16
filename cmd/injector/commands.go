package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/words"
)

// command is one of the program's commands.
type command struct {
	name    string
	args    string
	does    string
	exits   string // which exit codes mean what, beyond the common ones
	run     func(*invocation) error
	details string
	asks    bool // the common exit codes have no meaning for it
}

// commands lists them in the order of help.
func commands() []command {
	return []command{
		{name: "init", does: "adopt or mint a key, publish it, leave it to run", exits: "0 published", run: runInit,
			details: "Gives up after INJECTOR_INIT_TIMEOUT, naming the step that hung, and revokes what it made."},
		{name: "run", does: "the sidecar: adopt or mint, publish, extend, rotate, revoke at the end", exits: "0 after a clean stop", run: runRun,
			details: "SIGTERM and SIGINT revoke all keys and end; a second one ends at once. SIGQUIT hands the key over to the\nnext start. SIGHUP reads credentials and templates again, and extends or\nreplaces the key now. A refused credential does not end it: it waits,\nnot ready, for a corrected file, and tries again after 10 min, 20 min and an hour.\nAfter injector handover the next SIGTERM or SIGINT hands over, too."},
		{name: "exec", args: "-- CMD …", does: "run, with a command that has the token in its environment", exits: "the command's, 128 and the signal's number if one ended it", asks: true, run: runExec,
			details: "The command starts when there is a verified key, and has its token in INJECTOR_TOKEN_VARIABLES\n(BALENA_TOKEN), but none of the injector's variables. An extension does not disturb it; when another key\ntakes over it is restarted (INJECTOR_ON_ROTATION). SIGTERM and SIGINT are passed on; what does not end within\nINJECTOR_KILL_AFTER is ended by force, and then the keys are revoked. Other signals are passed on, SIGHUP and\nSIGQUIT among them. Before the command has started it gives up as init does, with the same exit codes."},
		{name: "wait", args: "[-- CMD …]", does: "block until the outputs are published, then become CMD", exits: "0, 1 after INJECTOR_INIT_TIMEOUT, or CMD's", asks: true, run: runWait,
			details: "For platforms that cannot wait for a healthy sidecar. It needs no credential, only INJECTOR_OUTPUT,\nINJECTOR_TEMPLATES or INJECTOR_KEYS as the sidecar has them."},
		{name: "install", args: "DIR", does: "copy this program to DIR/injector, for exec and wait in other images", exits: "0", asks: true, run: runInstall},
		{name: "revoke", args: "[--expired]", does: "revoke all keys of the journal, remove the outputs", exits: "0 all gone that can be revoked", run: runRevoke,
			details: "Refuses beside a live agent. With --expired it also deletes, by id, keys of this INJECTOR_NAME\nthat expired more than 7 days ago: the server never does."},
		{name: "handover", args: "[--undo]", does: "make the next stop of the running injector leave its keys to the next start", exits: "0, or 1 if none runs", asks: true, run: runHandover,
			details: "For restarting or upgrading the sidecar beside a running app: for ten minutes a SIGTERM or SIGINT hands\nover as SIGQUIT does, instead of revoking. Replace the injector right after it; --undo if you do not."},
		{name: "healthcheck", args: "[--live] [--hold=1m]", does: "say in one line whether apps can rely on the key, and if not, why (--live: alive?)",
			exits: "0 yes, 1 no", asks: true, run: runHealthcheck,
			details: "With --hold, for engines that ask every few seconds: news is answered at once, and what is known already when it\nchanges, or after that time, 5m at most. The line is that of status."},
		{name: "status", args: "[--json]", does: "what the running injector holds, what fails and what would help; or what one has left that does not run",
			exits: "0, or 1 if none runs that keeps these outputs", asks: true, run: runStatus},
		{name: "explain", does: "the same as status in sentences, with what comes next; without a running injector also what one would do", exits: "0", run: runExplain},
		{name: "check", args: "[--now]", does: "try what run would do, without minting: configuration, directories, addresses, API and credential", exits: "0 all well", run: runCheck,
			details: "A login that balena refused is not tried again at once, since ten refusals lock an account out for an hour.\n--now tries it all the same, up to eight in an hour, and a running injector with the same settings then goes on."},
		{name: "version", does: "print the version", exits: "0", asks: true, run: runVersion},
		{name: "help", args: "[COMMAND]", does: "this text", exits: "0", asks: true, run: runHelp},
	}
}

func findCommand(name string) *command {
	for _, c := range commands() {
		if c.name == name {
			return &c
		}
	}
	return nil
}

func suggestCommand(name string) string {
	var all []string
	for _, c := range commands() {
		all = append(all, c.name)
	}
	if near := words.Nearest(name, all); near != "" {
		return " (did you mean " + near + "?)"
	}
	return ""
}

// flags parses a command's flags and refuses other arguments. The error has been told.
func (in *invocation) flags(name string, define func(*flag.FlagSet)) error {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	if define != nil {
		define(set)
	}
	err := set.Parse(in.args)
	switch {
	case err == flag.ErrHelp:
		printCommand(in.stdout, findCommand(name))
		return silent(exitDone)
	case err == nil && set.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	if err != nil {
		_, _ = fmt.Fprintf(in.stderr, "injector %s: %v; everything else is configured by environment variables, see `injector help`\n", name, err)
		return silent(exitConfig)
	}
	return nil
}

func runVersion(in *invocation) error {
	if err := in.flags("version", nil); err != nil {
		return err
	}
	_, err := fmt.Fprintln(in.stdout, "injector", version())
	return err
}

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
	_, _ = io.WriteString(in.stdout, "\nEnvironment variables (with their defaults; [_FILE]: or NAME_FILE, the path of a file that is watched):\n\n")
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
		_, _ = fmt.Fprintf(w, "%s\n", c.details)
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
	_, _ = io.WriteString(w, "Needed are an account (BALENA_USERNAME and BALENA_PASSWORD) and a tmpfs at /secrets; `injector help` lists all variables.\n")
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
