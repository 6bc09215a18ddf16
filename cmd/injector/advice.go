package main

import (
	"errors"
	"os"
	"strings"

	"github.com/balena-injector/injector/agent"
	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/key"
)

// advise returns what a person can do about an error, naming the variables; "" if the error
// says it already.
func advise(err error) string {
	e, isAPI := errors.AsType[*balena.Error](err)
	switch {
	case errors.Is(err, agent.ErrLocked):
		return "stop the other injector, or give this one both another INJECTOR_OUTPUT and another INJECTOR_STATE_DIR"
	case errors.Is(err, probe.ErrNoAgent):
		return "start it, or set INJECTOR_OUTPUT or INJECTOR_STATE_DIR as it has them"
	case errors.As(err, new(*agent.LeftError)) && os.Getenv("KUBERNETES_SERVICE_HOST") != "":
		return "a container that is only restarted takes them up again; of a pod that is deleted the state goes with its memory, and they die at the times named. " +
			"If that is too late, delete them in the dashboard"
	case errors.As(err, new(*agent.LeftError)):
		return "when the API answers again, `injector revoke` with the same settings ends them at once, if the state directory is still there; the next start does, too"
	case !isAPI:
		return ""
	case e.Class == key.FreshLogin:
		return "set BALENA_USERNAME and BALENA_PASSWORD or BALENA_PASSWORD_FILE (and BALENA_TOTP_SECRET if the account has two-factor login), or give a BALENA_SESSION_TOKEN from a login within the last 20 minutes"
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

func adviseRefused(e *balena.Error) string {
	switch {
	case e.Locked:
		return "wait; the account is not locked yet, and would be by a few more tries"
	case e.Unasked:
		return "if the password is right now, `injector check --now` asks balena at once, and a running injector goes on then; otherwise correct it, or wait"
	case strings.Contains(e.Op, "two-factor"):
		return "set BALENA_TOTP_SECRET or BALENA_TOTP_SECRET_FILE to the secret behind the account's two-factor QR code, and check the clock"
	case strings.Contains(e.Op, "session token"), strings.Contains(e.Op, "session"):
		return "give a current BALENA_SESSION_TOKEN or BALENA_SESSION_TOKEN_FILE, or better BALENA_USERNAME and BALENA_PASSWORD, which do not run out"
	case strings.Contains(e.Op, "user key"), strings.Contains(e.Op, "credential"):
		return "check the key in BALENA_API_KEY_FILE, or the session token, and that BALENA_API_URL is where it was made"
	}
	return "check BALENA_USERNAME, BALENA_PASSWORD or BALENA_PASSWORD_FILE, and that BALENA_API_URL is this account's server"
}
