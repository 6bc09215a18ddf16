package sidecar

import (
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/internal/config"
	"github.com/balena-injector/injector/key"
)

// TestASessionThatEndedNamesItsVariables follows the error of a session token that is over to the advice for people.
func TestASessionThatEndedNamesItsVariables(t *testing.T) {
	server := balenatest.New(balenatest.Options{SessionLife: time.Hour})
	client, err := balena.NewClient(balena.Config{URL: server.Start(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ended := key.NewSecret(server.Session(server.DefaultUser(), 2*time.Hour))
	account, err := balena.NewAccount(client,
		balena.AccountConfig{Credentials: balena.Credentials{Session: func() (key.Secret, error) { return ended, nil }}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = account.Tend(t.Context(), nil)
	if !key.Is(err, key.Refused) {
		t.Fatalf("got %v", err)
	}
	for _, name := range []string{"BALENA_SESSION_TOKEN", "BALENA_SESSION_TOKEN_FILE", "BALENA_USERNAME", "BALENA_PASSWORD"} {
		if advice := Advise(config.Environ{}, err); !strings.Contains(advice, name) {
			t.Errorf("%v: the advice %q does not name %s", err, advice, name)
		}
	}
	if live := server.Live(); len(live) != 0 {
		t.Errorf("live: %+v", live)
	}
}
