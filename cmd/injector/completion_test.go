package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/balena-injector/injector/balena/balenatest"
)

// script is what injector completion prints for a shell, in a file.
func script(t *testing.T, shell string) string {
	t.Helper()
	var out bytes.Buffer
	shells()[shell](&out)
	path := filepath.Join(t.TempDir(), "completion")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// in runs a text in a shell, which is left out where there is none.
func in(t *testing.T, shell string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(shell); err != nil {
		if os.Getenv("CI_HAS_ALL") != "" {
			t.Fatal(err)
		}
		t.Skipf("LEFT OUT: completion in %s; there is no %s", shell, shell)
	}
	cmd := exec.Command(shell, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// typedLines are what a person has typed, with what the shell must offer among others, and must not.
var typedLines = []struct{ typed, want, never string }{
	{"", "healthcheck", "--json"},
	{"st", "status", "run"},
	{"status ", "--json", "--now"},
	{"help INJECTOR_T", "INJECTOR_TTL", "INJECTOR_OUTPUT"},
	{"help st", "status", "INJECTOR_TTL"},
	{"completion ", "fish", "status"},
	{"healthcheck --h", "--hold=", "--live"},
	{"exec ", "--", "status"},
	{"exec -- sle", "sleep", "status"},
	{"version ", "", "--"},
}

func wantOffers(t *testing.T, shell, typed, out, want, never string) {
	t.Helper()
	offers := strings.Fields(out)
	if want != "" && !slices.Contains(offers, want) || slices.Contains(offers, never) {
		t.Errorf("%s offers %q after %q; want %q and not %q", shell, offers, "injector "+typed, want, never)
	}
}

func TestCompletionInBash(t *testing.T) {
	path := script(t, "bash")
	for _, l := range typedLines {
		line := "injector " + l.typed
		typed := strings.Fields(line)
		if strings.HasSuffix(line, " ") {
			typed = append(typed, "")
		}
		var text strings.Builder
		text.WriteString("compopt() { :; }; source " + path + "; COMP_CWORD=" + string(rune('0'+len(typed)-1)) + "; COMP_WORDS=(")
		for _, word := range typed {
			text.WriteString(" " + quoted(word))
		}
		wantOffers(t, "bash", l.typed, in(t, "bash", "-c", text.String()+`); _injector; printf '%s\n' "${COMPREPLY[@]}"`), l.want, l.never)
	}
	if out := in(t, "bash", "-c", "source "+path+"; complete -p injector"); !strings.Contains(out, "-F _injector injector") {
		t.Error(out)
	}
}

func TestCompletionInFish(t *testing.T) {
	path := script(t, "fish")
	for _, l := range typedLines {
		ask := "source " + path + "; complete -C " + quoted("injector "+l.typed) + " | string split -f1 \\t; true"
		out := in(t, "fish", "--no-config", "-c", ask)
		if l.typed == "exec " {
			continue // fish offers the command at once
		}
		wantOffers(t, "fish", l.typed, out, l.want, l.never)
	}
}

func TestCompletionInZsh(t *testing.T) {
	path := script(t, "zsh")
	in(t, "zsh", "-n", path)
	// Completion works in a line editor only: here its building blocks print what they are given.
	blocks := "compdef() { :; }; source " + path + "; _describe() { print -l ${(P)2%%:*}; }; compadd() { shift; print -l -- $@; }; " +
		"_normal() { print -l -- $words; }; _files() { print files; }; "
	for _, l := range typedLines {
		typed := strings.Fields("injector " + l.typed)
		if l.typed == "" || strings.HasSuffix(l.typed, " ") {
			typed = append(typed, "")
		}
		var text strings.Builder
		text.WriteString(blocks + "words=(")
		for _, word := range typed {
			text.WriteString(" " + quoted(word))
		}
		out := in(t, "zsh", "-f", "-c", text.String()+"); CURRENT=${#words}; _injector")
		if l.typed == "exec -- sle" {
			wantOffers(t, "zsh", l.typed, out, "sle", "--") // the rest is left to the command's own completion
			continue
		}
		if last := typed[len(typed)-1]; last != "" { // zsh itself drops what does not begin with what was typed
			var kept []string
			for offer := range strings.FieldsSeq(out) {
				if strings.HasPrefix(offer, last) {
					kept = append(kept, offer)
				}
			}
			out = strings.Join(kept, " ")
		}
		wantOffers(t, "zsh", l.typed, out, l.want, l.never)
	}
	out := in(t, "zsh", "-f", "-c", "autoload -U compinit; compinit -u -D; source "+path+"; print $_comps[injector]")
	if strings.TrimSpace(out) != "_injector" {
		t.Error(out)
	}
}

func TestCompletionOfOtherShells(t *testing.T) {
	s := newStage(t, balenatest.Options{})
	contains(t, s.want(int(exitConfig), "completion"), "which shell?")
	contains(t, s.want(int(exitConfig), "completion", "fihs"), "did you mean fish?", "bash, zsh or fish")
	contains(t, s.want(int(exitConfig), "completion", "powershell"), "bash, zsh or fish")
	contains(t, s.want(0, "completion", "bash"), "complete -F _injector injector")
	contains(t, s.want(0, "completion", "--help"), "/etc/bash_completion.d/injector")
}
