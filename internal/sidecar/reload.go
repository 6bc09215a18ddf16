package sidecar

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/render"
)

// watch looks after the files that are read again when they change.
func (a *App) watch(ctx context.Context, group *errgroup.Group) {
	if files := a.settings.Files; len(files) > 0 {
		group.Go(func() error { return render.Watch(ctx, a.log, files, func() { a.credentialsChanged(ctx) }) })
	}
	a.attend(ctx)
	for _, c := range a.censuses {
		group.Go(func() error { c.Run(ctx); return nil })
	}
	var templates []string
	for _, k := range a.keepers {
		for _, path := range k.files.Templates() {
			if !slices.Contains(templates, path) {
				templates = append(templates, path)
			}
		}
	}
	if len(templates) > 0 {
		group.Go(func() error {
			return render.Watch(ctx, a.log, templates, func() { a.readTemplates((*render.Files).Reload) })
		})
	}
}

func (a *App) credentialsChanged(ctx context.Context) {
	a.log.Info("reading the credentials again")
	for settings, account := range a.accounts {
		c := settings.Credentials
		for _, source := range []balena.Source{c.Password, c.TOTP, c.Session, c.UserKey} {
			if source == nil {
				continue
			}
			if _, err := source(); err != nil {
				a.log.Warn("a credential cannot be read; without it the next login will fail", "error", err)
			}
		}
		account.CredentialsChanged(ctx)
	}
	for _, k := range a.keepers {
		k.agent().TryCredential()
	}
}

// readTemplates reads the templates again; an error in one is reported where it is used.
func (a *App) readTemplates(again func(*render.Files) error) {
	a.log.Info("reading the templates again")
	for _, k := range a.keepers {
		_ = again(k.files)
		k.agent().Wake()
	}
}

// reread reads everything again that can change while the program runs.
func (a *App) reread(ctx context.Context) {
	for _, account := range a.accounts {
		account.TryNow(ctx) // a person wants to know
	}
	a.credentialsChanged(ctx)
	if slices.ContainsFunc(a.keepers, func(k *keeper) bool { return len(k.files.Templates()) > 0 }) {
		a.readTemplates((*render.Files).Reread)
	}
}

// renew makes every key be extended or replaced now.
func (a *App) renew() {
	a.log.Info("extending or replacing keys now, as SIGHUP asks")
	for _, k := range a.keepers {
		k.agent().Renew()
	}
}
