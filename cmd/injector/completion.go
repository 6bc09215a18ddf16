package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/words"
)

// shells are those that can complete, and what writes the script for each.
func shells() map[string]func(io.Writer) {
	return map[string]func(io.Writer){"bash": completeBash, "zsh": completeZsh, "fish": completeFish}
}

func runCompletion(in *invocation) error {
	if len(in.args) == 1 {
		if write, ok := shells()[in.args[0]]; ok {
			write(in.stdout)
			return nil
		}
		if !strings.HasPrefix(in.args[0], "-") {
			like := words.Nearest(in.args[0], []string{"bash", "zsh", "fish"})
			if like != "" {
				like = " (did you mean " + like + "?)"
			}
			_, _ = fmt.Fprintf(in.stderr, "injector completion: %q is no shell that it knows%s: give bash, zsh or fish\n", in.args[0], like)
			return silent(exitConfig)
		}
	}
	if len(in.args) > 0 {
		return in.flags("completion", nil)
	}
	_, _ = fmt.Fprintln(in.stderr, "injector completion: which shell? Give bash, zsh or fish")
	return silent(exitConfig)
}

var flagName = regexp.MustCompile(`--[a-z]+=?`)

// choices are what can follow a command's name: its flags, or what it knows by name. A command that runs others has none.
func (c *command) choices() []string {
	switch c.name {
	case "help":
		return append(commandNames(), variableNames()...)
	case "completion":
		return []string{"bash", "zsh", "fish"}
	}
	return flagName.FindAllString(c.args, -1)
}

// runsOthers reports whether another command follows this one's name and --.
func (c *command) runsOthers() bool { return strings.Contains(c.args, "-- CMD") }

func commandNames() []string {
	var list []string
	for _, c := range commands() {
		list = append(list, c.name)
	}
	return list
}

func variableNames() []string {
	var list []string
	for _, v := range config.Variables() {
		list = append(list, v.Name)
	}
	return list
}

func completeBash(w io.Writer) {
	_, _ = fmt.Fprintf(w, `# bash completion for injector, written by: injector completion bash
_injector() {
    local cur=${COMP_WORDS[COMP_CWORD]} choices=
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W '%s' -- "$cur"))
        return
    fi
    case ${COMP_WORDS[1]} in
`, strings.Join(commandNames(), " "))
	for _, c := range commands() {
		switch choices := c.choices(); {
		case c.runsOthers():
			_, _ = fmt.Fprintf(w, `    %s)
        case $COMP_CWORD in
        2) choices=-- ;;
        3) COMPREPLY=($(compgen -c -- "$cur")); return ;;
        *) compopt -o default 2>/dev/null; return ;; # bash 3 has no compopt
        esac ;;
`, c.name)
		case c.args == "DIR":
			_, _ = fmt.Fprintf(w, "    %s) COMPREPLY=($(compgen -d -- \"$cur\")); return ;;\n", c.name)
		case len(choices) > 0:
			_, _ = fmt.Fprintf(w, "    %s) choices='%s' ;;\n", c.name, strings.Join(choices, " "))
		}
	}
	_, _ = io.WriteString(w, `    esac
    COMPREPLY=($(compgen -W "$choices" -- "$cur"))
    if [[ ${COMPREPLY[0]-} == *= ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -F _injector injector
`)
}

func completeZsh(w io.Writer) {
	_, _ = io.WriteString(w, `#compdef injector
# zsh completion for injector, written by: injector completion zsh
_injector() {
    local -a commands
    commands=(
`)
	for _, c := range commands() {
		_, _ = fmt.Fprintf(w, "        %s\n", quoted(c.name+":"+c.does))
	}
	_, _ = io.WriteString(w, `    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    case $words[2] in
`)
	for _, c := range commands() {
		switch choices := c.choices(); {
		case c.runsOthers():
			_, _ = fmt.Fprintf(w, `    %s)
        if (( CURRENT == 3 )); then
            compadd -- --
        else
            shift 3 words
            (( CURRENT -= 3 ))
            _normal
        fi ;;
`, c.name)
		case c.args == "DIR":
			_, _ = fmt.Fprintf(w, "    %s) _files -/ ;;\n", c.name)
		case len(choices) > 0:
			_, _ = fmt.Fprintf(w, "    %s) compadd -- %s ;;\n", c.name, strings.Join(choices, " "))
		}
	}
	_, _ = io.WriteString(w, `    esac
}
if [ "$funcstack[1]" = _injector ]; then
    _injector "$@"
else
    compdef _injector injector
fi
`)
}

func completeFish(w io.Writer) {
	_, _ = io.WriteString(w, "# fish completion for injector, written by: injector completion fish\ncomplete -c injector -f\n")
	for _, c := range commands() {
		_, _ = fmt.Fprintf(w, "complete -c injector -n __fish_use_subcommand -a %s -d %s\n", c.name, quoted(c.does))
	}
	for _, c := range commands() {
		seen := "complete -c injector -n '__fish_seen_subcommand_from " + c.name + "'"
		switch choices := c.choices(); {
		case c.runsOthers():
			_, _ = fmt.Fprintf(w, "%s -a '(__fish_complete_subcommand --fcs-skip=3)'\n", seen)
		case c.args == "DIR":
			_, _ = fmt.Fprintf(w, "%s -a '(__fish_complete_directories)'\n", seen)
		case len(choices) > 0:
			_, _ = fmt.Fprintf(w, "%s -a '%s'\n", seen, strings.Join(choices, " "))
		}
	}
}

// quoted is a text in single quotes, as the three shells read them.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
