package config

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/balena-injector/injector/internal/rootdir"
)

// Notify is whom to tell of a publication. The zero value: nobody.
type Notify struct {
	Command []string
	Signal  syscall.Signal // 0: none
	Process string         // who gets the signal
	Method  string
	URL     string // empty: none
	Timeout time.Duration
	First   bool // of the first publication after a start, too
}

func (p *parser) notify(k *Key, v keyVariables) {
	n := &k.Notify
	n.Timeout = p.duration("INJECTOR_NOTIFY_TIMEOUT", v.NotifyTimeout, 100*time.Millisecond)
	n.First = p.boolean("INJECTOR_NOTIFY_FIRST", v.NotifyFirst)
	n.Command = p.command("INJECTOR_NOTIFY_COMMAND", v.NotifyCommand)
	if len(n.Command) > 0 && !p.WithoutFiles {
		if err := p.env.lookPath(n.Command[0]); err != nil {
			p.fail("INJECTOR_NOTIFY_COMMAND", "names a program that cannot be run: "+withoutProgram(err),
				"give a program in PATH or the path of one; for a shell's line, [\"sh\",\"-c\",\"…\"]")
		}
	}
	if v.NotifySignal != "" {
		name, process, _ := strings.Cut(v.NotifySignal, ":")
		sig, ok := signalNamed(name)
		if n.Signal, n.Process = sig, process; !ok || process == "" || strings.Contains(process, "/") {
			p.fail(
				"INJECTOR_NOTIFY_SIGNAL",
				"is not a signal and a process",
				"give SIGNAL:PROCESS, the name as `ps` shows it, such as HUP:nginx",
			)
		}
	}
	if v.NotifyURL != "" {
		p.notifyURL(n, v.NotifyURL)
	}
}

// methodForm is what a method of HTTP looks like.
var methodForm = form(`^[A-Z]+$`)

// withoutProgram is why a program cannot be run, without what was given as its name.
func withoutProgram(err error) string {
	if e, ok := errors.AsType[*exec.Error](err); ok {
		err = e.Err
	}
	return rootdir.WithoutPath(err).Error()
}

func (p *parser) notifyURL(n *Notify, text string) {
	n.Method, n.URL = http.MethodPost, text
	if method, rest, ok := strings.Cut(text, " "); ok {
		n.Method, n.URL = method, strings.TrimSpace(rest)
	}
	u, err := url.Parse(n.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || !methodForm().MatchString(n.Method) {
		p.fail("INJECTOR_NOTIFY_URL", "is not a request", "give a URL, or a method and a URL, such as PUT http://localhost:9090/-/reload")
	}
}

// command reads an argument list: a JSON list of strings, or words with blanks between them.
func (p *parser) command(variable, text string) []string {
	if !strings.HasPrefix(text, "[") {
		if strings.ContainsAny(text, "\"'`|&;<>$*?(){}\\") || strings.Contains(" "+text, " ~") {
			p.fail(variable, "has quotes or other characters that only a shell understands, and there is no shell",
				`give a JSON list of words such as ["my-hook","two words"], or ["sh","-c","…"] for a shell's line`)
			return nil
		}
		return strings.Fields(text)
	}
	var words []string
	if err := json.Unmarshal([]byte(text), &words); err != nil || len(words) == 0 || words[0] == "" {
		p.fail(
			variable,
			"begins like a JSON list, and is not one of words",
			`give a list such as ["nginx","-s","reload"], or words with blanks between them`,
		)
		return nil
	}
	return words
}

// signalNamed returns the signal of a name such as HUP or SIGHUP.
func signalNamed(name string) (syscall.Signal, bool) {
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	sig := unix.SignalNum(name)
	return sig, sig != 0
}
