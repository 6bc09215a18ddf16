package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/balena-injector/injector/internal/probe"
)

// serve runs work beside the probes and the watchers, which end with it. SIGHUP is for the injector if hangup says so,
// and otherwise for its command.
func (a *App) serve(stop context.Context, hangup bool, work func() error) error {
	socket, err := probe.Listen(a.state.Root(), a.state.Path())
	if err != nil {
		return at("INJECTOR_STATE_DIR", fmt.Errorf("make the socket for probes in %s: %w", a.state.Path(), err))
	}
	var tcp net.Listener
	if a.settings.Listen != "" {
		if tcp, err = listen(a.settings.Listen); err != nil {
			return errors.Join(err, socket.Close())
		}
		a.log.Info("listening for probes and metrics", "address", tcp.Addr().String())
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(stop))
	var group errgroup.Group
	a.again = func() { a.reread(ctx) }
	if hangup {
		defer a.onHangup(func() { a.reread(ctx); a.renew() })()
	}
	server := &probe.Server{Alive: a.Alive, Report: a.report, Ask: a.ask,
		Metrics: func(w io.Writer) { probe.WriteMetrics(w, a.report(), a.requests) }}
	if tcp != nil {
		group.Go(func() error { return server.Serve(ctx, nil, tcp) })
	}
	serveSocket := func(socket net.Listener) (end func()) {
		ctx, end := context.WithCancel(ctx)
		group.Go(func() error { return server.Serve(ctx, socket, nil) })
		return end
	}
	endSocket := serveSocket(socket)
	a.state.OnRenewal(func() {
		endSocket() // nobody finds it any more
		if socket := a.listenAgain(); socket != nil {
			endSocket = serveSocket(socket)
		}
	})
	defer a.state.OnRenewal(nil)
	a.watch(ctx, &group)
	err = work()
	cancel()
	return errors.Join(err, group.Wait())
}

// listenAgain makes the socket where others look for it now. It returns nil if that fails, which it says.
func (a *App) listenAgain() net.Listener {
	a.log.Warn("the state directory was removed or is another one now; the journal is written there", "directory", a.state.Path())
	socket, err := probe.Listen(a.state.Root(), a.state.Path())
	if err != nil {
		a.log.Error("the socket for probes could not be made there; healthcheck and status get no answer", "error", err)
		return nil
	}
	return socket
}

// onHangup calls f at each SIGHUP.
func (a *App) onHangup(f func()) (undo func()) {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-caught:
				f()
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(caught); close(done) }
}
