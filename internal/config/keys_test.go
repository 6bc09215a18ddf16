package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/key"
)

// TestSeveralKeysHaveVariablesOfTheirOwn and everybody's for what they have not. Two of them never share a file.
func TestSeveralKeysHaveVariablesOfTheirOwn(t *testing.T) {
	s := accepted(t, with(
		"INJECTOR_KEYS= deploy, fleet2 ,",
		"INJECTOR_TTL=2h",
		"INJECTOR_DEPLOY_TTL=30m",
		"INJECTOR_FLEET2_TTL=",
		"INJECTOR_NAME=ours",
		"INJECTOR_FLEET2_KIND=fleet",
		"INJECTOR_FLEET2_TARGET=org/fleet",
		"INJECTOR_FLEET2_TEMPLATES=raw:/elsewhere/token",
		"INJECTOR_DEPLOY_TOKEN_VARIABLES=TOKEN",
		"INJECTOR_DEPLOY_NOTIFY_FIRST=true",
	), Options{})
	if !s.Several() || len(s.Keys) != 2 || s.StateDir != "/secrets/.injector" {
		t.Fatalf("%d keys, state in %s", len(s.Keys), s.StateDir)
	}
	deploy, fleet := s.Keys[0], s.Keys[1]
	if deploy.Name != "deploy" || deploy.Kind != key.User || deploy.Times.TTL != 30*time.Minute ||
		deploy.Prefix != "ours" || !deploy.Notify.First {
		t.Errorf("deploy is %+v", deploy)
	}
	if fleet.Name != "fleet2" || fleet.Kind != key.Fleet || fleet.Target.String() != "org/fleet" || fleet.Times.TTL != 2*time.Hour ||
		fleet.Prefix != "ours" || fleet.Notify.First {
		t.Errorf("fleet2 is %+v", fleet)
	}
	for _, c := range []struct{ got, want []string }{
		{deploy.Paths(), []string{"/secrets/deploy"}},
		{fleet.Paths(), []string{"/elsewhere/token"}},
		{deploy.Variables, []string{"TOKEN"}},
		{fleet.Variables, []string{"BALENA_TOKEN_FLEET2"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("got %q, not %q", c.got, c.want)
		}
	}
}

// TestKeysShareACredential unless they have one of their own. Nobody's is asked for where each has its own.
func TestKeysShareACredential(t *testing.T) {
	s := accepted(t, with(
		"INJECTOR_KEYS=a,b,c,d",
		"INJECTOR_B_USERNAME=Another",
		"INJECTOR_B_PASSWORD=of another",
		"INJECTOR_D_USERNAME=last",
		"INJECTOR_D_PASSWORD=of the last",
	), Options{})
	var logins []string
	for _, a := range s.Accounts {
		logins = append(logins, a.Key+":"+a.Login)
	}
	if want := []string{":injector", "b:another", "d:last"}; !slices.Equal(logins, want) {
		t.Errorf("accounts are %q, not %q", logins, want)
	}
	for i, want := range []int{0, 1, 0, 2} {
		if s.Keys[i].Account != s.Accounts[want] {
			t.Errorf("%s has the account %+v", s.Keys[i].Name, s.Keys[i].Account)
		}
	}
	if secret, err := s.Accounts[1].Credentials.Password(); err != nil || secret.Reveal() != "of another" {
		t.Errorf("b's password is another one: %v", err)
	}

	own := NewEnviron([]string{"INJECTOR_KEYS=a", "INJECTOR_A_USERNAME=x", "INJECTOR_A_PASSWORD=y"})
	if s := accepted(t, own, Options{}); len(s.Accounts) != 1 || s.Accounts[0].Key != "a" {
		t.Errorf("accounts are %+v", s.Accounts)
	}
	// What a key has of its own is not made whole with everybody's.
	wantRefused(t, with("INJECTOR_KEYS=a,b", "INJECTOR_B_USERNAME=x"), Options{},
		"INJECTOR_B_PASSWORD is missing beside INJECTOR_B_USERNAME: set it, or INJECTOR_B_PASSWORD_FILE")
	wantRefused(t, with("INJECTOR_KEYS=a,b", "INJECTOR_B_PASSWORD=x"), Options{}, "INJECTOR_B_USERNAME is missing")
}

// TestNamesOfKeysThatWouldBeMisread or cannot be part of a variable's name.
func TestNamesOfKeysThatWouldBeMisread(t *testing.T) {
	for names, says := range map[string]string{
		"Deploy":                       "has an entry 1 that cannot be a key's name: names are up to 20 lower case letters",
		"a,1b":                         "has an entry 2 that cannot be a key's name",
		"a_b":                          "has an entry 1 that cannot be a key's name",
		"a b":                          "has an entry 1 that cannot be a key's name",
		strings.Repeat("a", 21):        "has an entry 1 that cannot be a key's name",
		"a,b,a":                        "names a twice",
		" , ,":                         "names no key: give names such as deploy,fleet, or unset it",
		"max":                          "names a key max, whose variable INJECTOR_MAX_TTL means something else: give it another name",
		"port":                         "names a key port, whose variable INJECTOR_PORT_",
		"service":                      "names a key service, whose variable INJECTOR_SERVICE_",
		"a," + "max":                   "names a key max",
		strings.Repeat("a", 20) + ",1": "has an entry 2",
	} {
		wantRefused(t, with("INJECTOR_KEYS="+names), Options{}, "INJECTOR_KEYS "+says)
	}
}

// TestAMistakeIsToldOnce under the name that it is set with, however many keys read it.
func TestAMistakeIsToldOnce(t *testing.T) {
	wantRefused(t, with("INJECTOR_KEYS=a,b,c", "INJECTOR_TTL=5"), Options{}, "\n  INJECTOR_TTL is not a duration")
	wantRefused(t, with("INJECTOR_KEYS=a,b,c", "INJECTOR_B_TTL=5"), Options{}, "\n  INJECTOR_B_TTL is not a duration")
	wantRefused(t, with("INJECTOR_KEYS=a,b", "INJECTOR_A_TTL='1h'"), Options{}, "INJECTOR_A_TTL is between quotes")
}

// TestWhatNoKeyWouldTake is refused beside INJECTOR_KEYS: two keys cannot write one file.
func TestWhatNoKeyWouldTake(t *testing.T) {
	for name, value := range map[string]string{
		"INJECTOR_OUTPUT":          "/x/token",
		"INJECTOR_TEMPLATES":       "raw:/x/token",
		"INJECTOR_TOKEN_VARIABLES": "TOKEN",
	} {
		fix := strings.Replace(name, "INJECTOR_", "INJECTOR_DEPLOY_", 1)
		wantRefused(t, with("INJECTOR_KEYS=deploy,fleet", name+"="+value), Options{}, name+" is set", "set "+fix+" and so on")
	}
}

// TestUnknownVariablesAreTold with what was meant, unless it is Kubernetes that sets them for a service of that name.
func TestUnknownVariablesAreTold(t *testing.T) {
	accepted(t, with(
		"INJECTOR_SERVICE_HOST=10.0.0.1",
		"INJECTOR_SERVICE_PORT=80",
		"INJECTOR_SERVICE_PORT_METRICS=80",
		"INJECTOR_PORT=tcp://10.0.0.1:80",
		"INJECTOR_PORT_80_TCP_ADDR=10.0.0.1",
		"INJECTOR_METRICS_SERVICE_HOST=10.0.0.1",
		"INJECTOR_METRICS_PORT_80_TCP=x",
		"MY_INJECTOR_TTL=x",
	), Options{})
	for name, says := range map[string]string{
		"INJECTOR_OTPUT":        "did you mean INJECTOR_OUTPUT?",
		"INJECTOR_SOMETHING":    "`injector help` lists all names",
		"INJECTOR_USER":         "the account's name is read from BALENA_USERNAME",
		"INJECTOR_DEPLOY_TTL":   "INJECTOR_KEYS does not name a key deploy",
		"INJECTOR_B_TTL":        "INJECTOR_KEYS does not name a key b",
		"INJECTOR_DEPLOY_OTHER": "`injector help` lists all names",
	} {
		wantRefused(t, with("INJECTOR_KEYS=a", name+"=x"), Options{}, name+" is not a variable that the injector knows: ", says)
	}
	wantRefused(t, with("INJECTOR_DEPLOY_TTL=1h"), Options{}, "`injector help` lists all names") // there are no keys to name
	_, err := Read(with("INJECTOR_ZZZZZZZZ=1", "INJECTOR_AAAAAAAA=1"), Options{})
	if problems, ok := errors.AsType[Problems](err); !ok || len(problems) != 2 || problems[0].Variable != "INJECTOR_AAAAAAAA" {
		t.Errorf("not in order: %v", err)
	}
}
