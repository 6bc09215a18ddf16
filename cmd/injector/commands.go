package main

import (
	"flag"
	"fmt"
	"io"
	"slices"

	"github.com/balena-injector/injector/internal/words"
)

// command is one of the program's commands.
type command struct {
	name    string
	args    string
	does    string
	exits   string // which exit codes mean what, beyond the common ones
	details string // paragraphs of help; empty: what it does says it
	asks    bool   // the common exit codes have no meaning for it
	run     func(*invocation) error
}

// commands lists them in the order of help.
func commands() []command {
	return slices.Concat(keeping(), inContainers(), ending(), asking(), about())
}

// keeping are the commands that mint, keep and revoke keys.
func keeping() []command {
	return []command{
		{
			name:  "init",
			does:  "adopt or mint a key, publish it, leave it to run",
			exits: "0 published",
			run:   runInit,
			details: `
Gives up after INJECTOR_INIT_TIMEOUT, naming the step that hung, and revokes what it made.`,
		},
		{
			name:  "run",
			does:  "the sidecar: adopt or mint, publish, extend, rotate, revoke at the end",
			exits: "0 after a clean stop",
			run:   runRun,
			details: `
SIGTERM and SIGINT revoke all keys and end; a second one ends at once. SIGQUIT hands the key over to the
next start. SIGHUP reads credentials and templates again, and extends or replaces the key now.
If balena refuses the credential, run keeps running, not ready, and retries when a credential file changes,
or after 10 min, 20 min and an hour. After injector handover the next SIGTERM or SIGINT hands over, too.`,
		},
		{
			name:  "exec",
			args:  "-- CMD …",
			does:  "run, with a command that has the token in its environment",
			exits: "the command's, 128 and the signal's number if one ended it",
			asks:  true,
			run:   runExec,
			details: `
The command starts when there is a verified key, and has its token in INJECTOR_TOKEN_VARIABLES
(BALENA_TOKEN), but none of the injector's variables. An extension does not disturb it; when another key
takes over it is restarted (INJECTOR_ON_ROTATION). SIGTERM and SIGINT are passed on; what does not end within
INJECTOR_KILL_AFTER is ended by force, and then the keys are revoked. Other signals are passed on, SIGHUP and
SIGQUIT among them. Before the command has started it gives up as init does, with the same exit codes.`,
		},
	}
}

// inContainers are the commands for containers that have no credential.
func inContainers() []command {
	return []command{
		{
			name:  "wait",
			args:  "[-- CMD …]",
			does:  "block until the outputs are published, then become CMD",
			exits: "0, 1 after INJECTOR_INIT_TIMEOUT, or CMD's",
			asks:  true,
			run:   runWait,
			details: `
For platforms that cannot wait for a healthy sidecar. It needs no credential, only INJECTOR_OUTPUT,
INJECTOR_TEMPLATES or INJECTOR_KEYS as the sidecar has them.`,
		},
		{
			name:  "install",
			args:  "DIR",
			does:  "copy this program to DIR/injector, for exec and wait in other images",
			exits: "0",
			asks:  true,
			run:   runInstall,
		},
	}
}

// ending are the commands that end keys, or keep them from ending.
func ending() []command {
	return []command{
		{
			name:  "revoke",
			args:  "[--expired]",
			does:  "revoke all keys of the journal, remove the outputs",
			exits: "0 all gone that can be revoked",
			run:   runRevoke,
			details: `
Refuses beside a live agent. With --expired it also deletes, by id, keys of this INJECTOR_NAME
that expired more than 7 days ago: the server never does.`,
		},
		{
			name:  "handover",
			args:  "[--undo]",
			does:  "make the next stop of the running injector leave its keys to the next start",
			exits: "0, or 1 if none runs",
			asks:  true,
			run:   runHandover,
			details: `
For restarting or upgrading the sidecar beside a running app: for ten minutes a SIGTERM or SIGINT hands
over as SIGQUIT does, instead of revoking. Replace the injector right after it; --undo if you do not.`,
		},
	}
}

// asking are the commands for people and engines that want to know how things are.
func asking() []command {
	return []command{
		{
			name:  "healthcheck",
			args:  "[--live] [--hold=1m]",
			does:  "say in one line whether apps can rely on the key, and if not, why",
			exits: "0 yes, 1 no",
			asks:  true,
			run:   runHealthcheck,
			details: `
With --live it only says whether the main loop is making progress. With --hold, for engines that ask every few
seconds: news is answered at once, and what is known already when it changes, or after that time, 5m at most.
The line is that of status.`,
		},
		{
			name:  "status",
			args:  "[--json]",
			does:  "what the running injector holds, what fails and what would help; or what one has left that does not run",
			exits: "0, or 1 if none runs that keeps these outputs",
			asks:  true,
			run:   runStatus,
		},
		{
			name:  "explain",
			does:  "the same as status in sentences, with what comes next; without a running injector also what one would do",
			exits: "0",
			run:   runExplain,
		},
		{
			name:  "check",
			args:  "[--now]",
			does:  "try what run would do, without minting: configuration, directories, addresses, API and credential",
			exits: "0 all well",
			run:   runCheck,
			details: `
A login that balena refused is not tried again at once, since ten refusals lock an account out for an hour.
--now tries it all the same, up to eight in an hour, and a running injector with the same settings then goes on.`,
		},
	}
}

// about are the commands about the program itself.
func about() []command {
	return []command{
		{
			name:  "completion",
			args:  "bash|zsh|fish",
			does:  "print what lets a shell complete the injector's commands and variables",
			exits: "0",
			asks:  true,
			run:   runCompletion,
			details: `
For this shell, such as bash: source <(injector completion bash). For all later ones write it to where the
shell looks: /etc/bash_completion.d/injector, a directory of zsh's $fpath as _injector, or
~/.config/fish/completions/injector.fish.`,
		},
		{
			name:  "version",
			does:  "print version and revision",
			exits: "0",
			asks:  true,
			run:   runVersion,
		},
		{
			name:  "help",
			args:  "[COMMAND|VARIABLE]",
			does:  "all commands and variables, or one of them",
			exits: "0",
			asks:  true,
			run:   runHelp,
		},
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
		_, _ = fmt.Fprintf(
			in.stderr,
			"injector %s: %v; everything else is configured by environment variables, see `injector help`\n",
			name,
			err,
		)
		return silent(exitConfig)
	}
	return nil
}
