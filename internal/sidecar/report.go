package sidecar

import (
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/balena-injector/injector/internal/probe"
	"github.com/balena-injector/injector/internal/words"
)

// Alive reports whether every key's loop makes progress.
func (a *App) Alive() bool {
	return !slices.ContainsFunc(a.keepers, func(k *keeper) bool { return !k.agent().Alive() })
}

func (a *App) report() probe.Report {
	skew, _ := a.client.Skew()
	r := probe.Report{
		State:    probe.Running,
		StateDir: a.state.Path(),
		PID:      os.Getpid(),
		Version:  a.process.Version,
		Revision: a.process.Revision,
		Command:  a.process.Command,
		Started:  a.process.Started,
		API:      a.settings.API.URL,
		Listen:   a.settings.Listen,
		Ahead:    words.Seconds(skew.Round(time.Second)),

		GoVersion: runtime.Version(),
	}
	if sup := a.supervisor.Load(); sup != nil {
		restarts := sup.Restarts()
		r.Restarts = &restarts
	}
	if until := a.handover.Load(); until != nil && time.Now().Before(*until) {
		r.HandsOverUntil = until.Truncate(time.Second)
	}
	for _, k := range a.keepers {
		r.Keys = append(r.Keys, k.report())
	}
	r.Judge()
	return r
}

// report is everything about one key.
func (k *keeper) report() probe.KeyReport {
	t := k.settings.Times
	var untold []string
	var told probe.Told
	for _, n := range k.tellers {
		succeeded, failed := n.Tries()
		told.Succeeded, told.Failed = told.Succeeded+succeeded, told.Failed+failed
		if failure := n.Failing(); failure != "" {
			untold = append(untold, failure)
		}
	}
	status := k.agent().Status()
	if damage := k.files.Damage(); damage != nil { // what somebody asks about is looked at now
		status = status.Damaged(damage, time.Now())
	}
	r := probe.KeyReport{Name: k.settings.Name, Status: status, Outputs: k.settings.Paths(), Login: k.account.Login(),
		SessionExpiry: k.account.SessionExpiry(), TTL: words.Seconds(t.TTL), MaxTTL: words.Seconds(t.MaxTTL),
		Overlap: words.Seconds(t.Overlap), Check: words.Seconds(t.Check), Untold: untold}
	if len(k.tellers) > 0 {
		r.Told = &told
	}
	if failure := k.failure.Load(); failure != nil {
		r.Ready, r.Reason = false, *failure
	}
	if err := k.account.CredentialTrouble(); err != nil {
		r.Credential = &probe.Credential{Error: err.Error(), Fix: k.advise(err)}
	}
	return r
}
