package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/statedir"
	"github.com/balena-injector/injector/key"
)

// Advise returns what a person can do about an error, naming the variables; "" if the error says it already.
func Advise(env config.Environ, err error) string {
	if e, ok := errors.AsType[*balena.Error](err); ok && !errors.As(err, new(*agent.LeftError)) {
		return adviseAPI(env, e)
	}
	switch {
	case errors.Is(err, statedir.ErrLocked):
		return "stop the other injector; or, " + probe.OneEach
	case errors.Is(err, probe.ErrNoAgent):
		return startIt
	case errors.Is(err, probe.ErrSilent):
		return "if it stays so, end it with SIGKILL and start it again: it adopts its key"
	case errors.As(err, new(*agent.LeftError)) && env.Get("KUBERNETES_SERVICE_HOST") != "":
		return "a container that is only restarted takes them up again; of a pod that is deleted the state goes with its " +
			"memory, and they die at the times named. " +
			"If that is too late, delete them in the dashboard"
	case errors.As(err, new(*agent.LeftError)):
		return "when the API answers again, `injector revoke` with the same settings ends them at once, if the state directory is " +
			"still there; the next start does, too"
	}
	return adviseSystem(err)
}

// placeError is an error about the path in a variable.
type placeError struct {
	variable string
	error
}

func (p *placeError) Unwrap() error { return p.error }

// at names the variable whose path an error is about.
func at(variable string, err error) error {
	if err == nil {
		return nil
	}
	return &placeError{variable, err}
}

// adviseSystem is advise for what the operating system refuses.
func adviseSystem(err error) string {
	where := "the path"
	if p, ok := errors.AsType[*placeError](err); ok {
		where = p.variable
	}
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "raise the limit of open files: ulimit -n, docker run --ulimit nofile=1024, LimitNOFILE= of systemd"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "make room on the file system of " + where + ": a tmpfs needs a size of 1m"
	case errors.Is(err, syscall.ENOTDIR):
		return "correct " + where + ": something on the way is a file, and not a directory"
	case errors.Is(err, syscall.ELOOP):
		return "correct " + where + ": its links lead in a circle"
	case errors.Is(err, syscall.ENAMETOOLONG):
		return "shorten " + where
	case errors.Is(err, syscall.EROFS):
		return "mount a writable file system at " + where + ", a tmpfs for instance"
	case errors.Is(err, syscall.ENOLCK):
		return "put INJECTOR_STATE_DIR on a file system with locks, such as a tmpfs"
	case errors.Is(err, syscall.EADDRINUSE):
		return "another process listens there: set INJECTOR_LISTEN to another port, or end that process"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "set INJECTOR_LISTEN to an address of this machine, or leave the host out, as in :22536"
	case errors.As(err, new(*placeError)) && errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("give what %s names to user %d, who runs this, or run as another user", where, os.Getuid())
	}
	return ""
}

// adviseAPI is advise for what happened on the way to the API, or there.
func adviseAPI(env config.Environ, e *balena.Error) string {
	if text := adviseCause(env, e); text != "" {
		return text
	}
	switch {
	case e.Class == key.FreshLogin:
		return "set BALENA_USERNAME and BALENA_PASSWORD or BALENA_PASSWORD_FILE (and BALENA_TOTP_SECRET if the account has " +
			"two-factor login), or give a BALENA_SESSION_TOKEN from a login within the last 20 minutes"
	case e.Class == key.Refused:
		return adviseRefused(e)
	case e.Class == key.Outage && e.Status == 0 && e.Err != nil:
		return "if this lasts, check that BALENA_API_URL is right and can be reached from here"
	case e.Class == key.Wrong && e.Op == "log in":
		return "check BALENA_API_URL"
	case e.Class == key.Wrong && e.Status >= 300:
		return "check BALENA_API_URL, INJECTOR_KIND and INJECTOR_TARGET"
	case e.Class == key.Wrong && strings.HasPrefix(e.Op, "look up"):
		return "check INJECTOR_TARGET, and that this account may see it"
	}
	return ""
}

// adviseCause is adviseAPI where the cause alone says what would help.
func adviseCause(env config.Environ, e *balena.Error) string {
	switch e.Cause {
	case balena.Unreadable:
		return "mend the variable or file that is named: a file is read again as soon as it changes"
	case balena.Untrusted:
		return "set INJECTOR_CA_FILE to the certificate of the authority that has signed the server's (openBalena's is its " +
			"root CA), or mount the system's certificates if this image has none at /etc/ssl/certs"
	case balena.OtherName:
		return "give BALENA_API_URL the host name that the certificate is for"
	case balena.ClockOrDates:
		return "set this machine's clock (NTP); if it is right, the server needs another certificate"
	case balena.Proxied:
		return "check the proxy in " + proxyVariable(env) + ", or put the API's host into NO_PROXY"
	case balena.OtherScheme:
		return "check the scheme and the port of BALENA_API_URL: https:// is spoken at port 443 and http:// at port 80, unless " +
			"the server says otherwise"
	case balena.UnknownHost:
		return "check the host name in BALENA_API_URL, and this machine's DNS"
	case balena.NotListening:
		return "check host and port in BALENA_API_URL: nothing listens there, or a firewall refuses"
	case balena.Unreachable:
		return "check the network from here to BALENA_API_URL: a firewall, a route, or " + proxyVariable(env) + " that is needed"
	case balena.NotThisAPI:
		return "check BALENA_API_URL: what answers there is not a balena API. openBalena's is https://api. and your domain; a " +
			"portal or a proxy may answer in its place"
	case balena.NoFiles:
		return "raise the limit of open files: ulimit -n, docker run --ulimit nofile=1024, LimitNOFILE= of systemd"
	}
	return ""
}

// proxyVariable is the variable that names the proxy, for an error.
func proxyVariable(env config.Environ) string {
	names := []string{"HTTPS_PROXY", "https_proxy"}
	if strings.HasPrefix(env.Get("BALENA_API_URL"), "http://") {
		names = []string{"HTTP_PROXY", "http_proxy"}
	}
	if env.Get(names[0]) == "" && env.Get(names[1]) != "" {
		return names[1]
	}
	return names[0]
}

func adviseRefused(e *balena.Error) string {
	switch {
	case e.Locked:
		return "wait; the account is not locked yet, and would be by a few more tries"
	case e.Unasked:
		return "if the password is right now, `injector check --now` asks balena at once, and a running injector goes on then; " +
			"otherwise correct it, or wait"
	case strings.Contains(e.Op, "two-factor"):
		return "set BALENA_TOTP_SECRET or BALENA_TOTP_SECRET_FILE to the secret behind the account's two-factor QR code, and " +
			"check the clock"
	case strings.Contains(e.Op, "session token"), strings.Contains(e.Op, "session"):
		return "give a current BALENA_SESSION_TOKEN or BALENA_SESSION_TOKEN_FILE, or better BALENA_USERNAME and " +
			"BALENA_PASSWORD, which do not run out"
	case strings.Contains(e.Op, "user key"), strings.Contains(e.Op, "credential"):
		return "check the key in BALENA_API_KEY_FILE, or the session token, and that BALENA_API_URL is where it was made"
	}
	return "check BALENA_USERNAME, BALENA_PASSWORD or BALENA_PASSWORD_FILE, and that BALENA_API_URL is this account's server"
}
