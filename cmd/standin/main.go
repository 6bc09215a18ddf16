// Command standin serves balenatest's stand-in for the balena API, for trying out the injector
// without an account. Its first line of output is a JSON object that says where it listens and
// how to log in. It ends on SIGTERM or SIGINT,
// and then says which keys are still live.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/balena-injector/injector/balena/balenatest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

// greeting is the first line of output.
type greeting struct {
	URL          string `json:"url"`
	Username     string `json:"username"`
	Email        string `json:"email"`
	Password     string `json:"password"`
	TOTPSecret   string `json:"totp_secret,omitempty"`
	JWTSecret    string `json:"jwt_secret"`
	SessionToken string `json:"session_token"`
	FleetID      int64  `json:"fleet_id"`
	FleetSlug    string `json:"fleet_slug"`
	DeviceID     int64  `json:"device_id"`
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("standin", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1:0", "address to listen on")
	password := flags.String("password", "", "the user's password; empty keeps the built-in one")
	totp := flags.String("totp", "", "the user's TOTP secret (base32): logins then need a second factor")
	sessionLife := flags.Duration("session-life", 7*24*time.Hour, "how long a session lasts")
	sessionAge := flags.Duration("session-age", 0, "how long ago the printed session's login was")
	fixed := flags.Bool("session-fixed", false, "refreshing a session does not prolong it")
	listsAll := flags.Bool("lists-all", false, "list fleet and device keys too, as balenaCloud does")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := balenatest.New(balenatest.Options{SessionLife: *sessionLife, FixedExpiry: *fixed, ListsAll: *listsAll})
	u := s.DefaultUser()
	if *password != "" {
		u.Password = *password
	}
	u.TOTPSecret = *totp
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	hello := greeting{URL: "http://" + l.Addr().String(), Username: u.Name, Email: u.Email, Password: u.Password, TOTPSecret: u.TOTPSecret,
		JWTSecret: s.JWTSecret(), SessionToken: s.Session(u, *sessionAge), FleetID: s.DefaultFleet().ID, FleetSlug: s.DefaultFleet().Slug,
		DeviceID: s.DefaultDevice().ID}
	if err := json.NewEncoder(stdout).Encode(hello); err != nil {
		return err
	}
	srv := &http.Server{Handler: s.WithControl(), ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	live := s.Live()
	for _, k := range live {
		_, _ = fmt.Fprintf(stderr, "standin: live at the end: %s, until %s\n", k.Name, k.Expiry.UTC().Format(time.RFC3339))
	}
	_, _ = fmt.Fprintf(stderr, "standin: %d live keys at the end\n", len(live))
	return nil
}
