package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
)

// written is a new file with that text.
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	rewrite(t, path, text)
	return path
}

func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantSecret asks a credential's source.
func wantSecret(t *testing.T, source balena.Source, want string) {
	t.Helper()
	if source == nil {
		t.Error("there is no source")
	} else if secret, err := source(); err != nil || secret.Reveal() != want {
		t.Errorf("it gives %d letters, and should give %d: %v", len(secret.Reveal()), len(want), err)
	}
}

// TestACredentialHasTwoNames as balena's dashboard reserves names that begin with BALENA_. They may be mixed.
func TestACredentialHasTwoNames(t *testing.T) {
	const totp = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
	password, seed := written(t, "of a file"), written(t, totp)
	for name, entries := range map[string][]string{
		"the other ones":           {"INJECTOR_USERNAME=me", "INJECTOR_PASSWORD=of a file", "INJECTOR_TOTP_SECRET=" + totp},
		"files by the other names": {"INJECTOR_USERNAME=me", "INJECTOR_PASSWORD_FILE=" + password, "INJECTOR_TOTP_SECRET_FILE=" + seed},
		"mixed":                    {"BALENA_USERNAME=me", "INJECTOR_PASSWORD=of a file", "BALENA_TOTP_SECRET_FILE=" + seed},
	} {
		s := accepted(t, NewEnviron(entries), Options{})
		a := s.Keys[0].Account
		if a.Credentials.Username != "me" || a.Login != "me" || len(s.Warnings) != 0 {
			t.Errorf("%s: it logs in as %q, and warns %q", name, a.Credentials.Username, s.Warnings)
		}
		wantSecret(t, a.Credentials.Password, "of a file")
		wantSecret(t, a.Credentials.TOTP, totp)
		if a.Credentials.Session != nil || a.Credentials.UserKey != nil {
			t.Errorf("%s: it has more credentials: %+v", name, a.Credentials)
		}
	}
	// An error names what is set.
	wantRefused(t, NewEnviron([]string{"INJECTOR_USERNAME=me"}), Options{}, "INJECTOR_USERNAME")
	wantRefused(t, NewEnviron([]string{"INJECTOR_USERNAME=me", "INJECTOR_PASSWORD=\xff\xfea"}), Options{},
		"INJECTOR_PASSWORD is not usable")
	wantRefused(t, NewEnviron([]string{"BALENA_USERNAME=me", "INJECTOR_PASSWORD=x", "BALENA_PASSWORD_FILE=" + password}), Options{},
		"INJECTOR_PASSWORD and BALENA_PASSWORD_FILE are both set: keep one")
}

// TestACredentialsFileIsReadEachTime so that another password needs no restart. Its line end is not part of it. Nor does
// an error show what is in the file.
func TestACredentialsFileIsReadEachTime(t *testing.T) {
	path := written(t, "first\r\n")
	s := accepted(t, NewEnviron([]string{"BALENA_USERNAME=me", "BALENA_PASSWORD_FILE=" + path}), Options{})
	source := s.Keys[0].Account.Credentials.Password
	wantSecret(t, source, "first")
	rewrite(t, path, "second")
	wantSecret(t, source, "second")
	if !slices.Equal(s.Files, []string{path}) {
		t.Errorf("files to be watched are %q", s.Files)
	}
	for text, says := range map[string]string{
		"":                "file " + path + " is empty",
		"\n":              "file " + path + " is empty",
		"S3cret\nS3cret2": "file " + path + " is not usable: it has more than one line",
		"absent":          "file " + path + ": no such file or directory",
	} {
		rewrite(t, path, text)
		if text == "absent" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		_, err := source()
		if err == nil || !strings.HasPrefix(err.Error(), "BALENA_PASSWORD_FILE: "+says) || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("with %q it says: %v", text, err)
		}
	}
}

// TestFilesAreListedOnce though several keys and credentials read them.
func TestFilesAreListedOnce(t *testing.T) {
	path, other := written(t, "JBSWY3DPEHPK3PXP"), written(t, "another")
	s := accepted(t, NewEnviron([]string{
		"INJECTOR_KEYS=a,b,c",
		"BALENA_USERNAME=me",
		"BALENA_PASSWORD_FILE=" + path,
		"BALENA_TOTP_SECRET_FILE=" + path,
		"INJECTOR_B_USERNAME=b",
		"INJECTOR_B_PASSWORD_FILE=" + other,
	}), Options{})
	if !slices.Equal(s.Files, []string{path, other}) {
		t.Errorf("files to be watched are %q", s.Files)
	}
}

// TestWhatNobodySeesInAPassword is kept, and warned of.
func TestWhatNobodySeesInAPassword(t *testing.T) {
	for text, c := range map[string]struct{ is, warns string }{
		"plain":        {"plain", ""},
		"with a blank": {"with a blank", ""},
		"line end\n":   {"line end", ""},
		" before":      {" before", "BALENA_PASSWORD begins or ends with white space, which counts as part of it"},
		"after \n":     {"after ", "BALENA_PASSWORD begins or ends with white space, which counts as part of it"},
		`"quotes"`:     {`"quotes"`, "what BALENA_PASSWORD gives is between quotes, which count as part of it"},
	} {
		s := accepted(t, NewEnviron([]string{"BALENA_USERNAME=me", "BALENA_PASSWORD=" + text}), Options{})
		wantSecret(t, s.Accounts[0].Credentials.Password, c.is)
		if got := strings.Join(s.Warnings, "; "); !strings.HasPrefix(got, c.warns) || (got == "") != (c.warns == "") {
			t.Errorf("%q: it warns %q", text, got)
		}
		if strings.Contains(strings.Join(s.Warnings, ""), strings.TrimSpace(text)) {
			t.Errorf("%q: a warning shows it", text)
		}
	}
}

// TestTheFirstKindOfCredentialIsUsed a password before a session before a user key, and the rest is told of.
func TestTheFirstKindOfCredentialIsUsed(t *testing.T) {
	server := balenatest.New(balenatest.Options{}) // which nobody starts: it only signs sessions
	session := "BALENA_SESSION_TOKEN=" + server.Session(server.DefaultUser(), 0)
	s := accepted(t, with(session), Options{})
	if s.Accounts[0].Login != "injector" || !slices.Equal(s.Warnings, []string{"BALENA_SESSION_TOKEN is not used: there is a password"}) {
		t.Errorf("it logs in as %q, and warns %q", s.Accounts[0].Login, s.Warnings)
	}
	s = accepted(t, NewEnviron([]string{session}), Options{})
	const alone = "BALENA_SESSION_TOKEN is the only credential, and INJECTOR_SESSION_CACHE is not set: a start after 20"
	if len(s.Warnings) != 1 || !strings.HasPrefix(s.Warnings[0], alone) {
		t.Errorf("it warns %q", s.Warnings)
	}
	s = accepted(t, NewEnviron([]string{"INJECTOR_SESSION_TOKEN_FILE=" + written(t, session[len("BALENA_SESSION_TOKEN="):]),
		"INJECTOR_SESSION_CACHE=/state/session"}), Options{})
	if len(s.Warnings) != 0 || s.Accounts[0].Credentials.Session == nil {
		t.Errorf("with a cache it warns %q", s.Warnings)
	}
}

// TestAUserKeyComesFromAFile only, and makes fleet and device keys. The one that balena's platform sets is not for us.
func TestAUserKeyComesFromAFile(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	path := written(t, secret+"\n")
	fleet := []string{"INJECTOR_KIND=fleet", "INJECTOR_TARGET=org/fleet", "BALENA_API_KEY=of the device"}
	for _, name := range []string{"BALENA_API_KEY_FILE", "INJECTOR_API_KEY_FILE"} {
		s := accepted(t, NewEnviron(append(fleet, name+"="+path)), Options{})
		a := s.Accounts[0]
		wantSecret(t, a.Credentials.UserKey, secret)
		if digest, ok := strings.CutPrefix(a.Login, "key "); !ok || strings.Contains(secret, digest) {
			t.Errorf("%s: it has the login %q", name, a.Login)
		}
		if a.Credentials.Password != nil || !s.Keys[0].CanRotate {
			t.Errorf("%s: it has a password, or cannot rotate: %+v", name, s.Keys[0])
		}
		other := accepted(t, NewEnviron(append(fleet, name+"="+written(t, strings.Repeat("x", 32)))), Options{})
		if other.Accounts[0].Login == a.Login {
			t.Errorf("two keys have the login %q", a.Login)
		}
	}
	wantRefused(t, NewEnviron([]string{"BALENA_API_KEY_FILE=" + path}), Options{},
		"BALENA_API_KEY_FILE holds a user key, which can mint fleet and device keys only")
	wantRefused(t, NewEnviron(fleet), Options{}, "BALENA_USERNAME and a password are missing",
		"BALENA_API_KEY is set, and not used: put a user key into a file")
	s := accepted(t, with("BALENA_API_KEY=of the device"), Options{})
	if s.Accounts[0].Credentials.UserKey != nil || len(s.Warnings) != 0 {
		t.Errorf("the device's key is taken, or warned of: %q", s.Warnings)
	}
}

// TestWhatIsNotACredential is told where one is missing, and no value is.
func TestWhatIsNotACredential(t *testing.T) {
	for name, says := range map[string]string{
		"BALENA_TOKEN":    "BALENA_TOKEN is set, and not used: the injector makes such tokens",
		"BALENA_PASWRD2":  "BALENA_PASWRD2 is set: did you mean BALENA_PASSWORD?",
		"BALENA_SOMETHIN": "BALENA_API_KEY_FILE\n",
	} {
		_, err := Read(NewEnviron([]string{name + "=S3cret"}), Options{})
		if err == nil || !strings.Contains(err.Error()+"\n", says) || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("with %s it says: %v", name, err)
		}
	}
	// Where it is known what was meant, nothing else is said.
	wantRefused(t, NewEnviron([]string{"BALENA_SESION_TOKEN=x"}), Options{}, "did you mean BALENA_SESSION_TOKEN?")
	wantRefused(t, NewEnviron([]string{"BALENA_SESSION_TOKEN=x"}), Options{}, "BALENA_SESSION_TOKEN is not usable")
}

// TestBalenasOwnVariablesAreNoMistakes as each container on a device has them.
func TestBalenasOwnVariablesAreNoMistakes(t *testing.T) {
	s := accepted(t, with(
		"BALENA=1",
		"BALENA_APP_ID=1",
		"BALENA_APP_LOCK_PATH=/tmp/balena/updates.lock",
		"BALENA_APP_NAME=fleet",
		"BALENA_APP_UUID=0123456789abcdef0123456789abcdef",
		"BALENA_DEVICE_ARCH=aarch64",
		"BALENA_DEVICE_NAME_AT_INIT=x",
		"BALENA_DEVICE_TYPE=raspberrypi4-64",
		"BALENA_DEVICE_UUID=0123456789abcdef0123456789abcdef",
		"BALENA_HOST_OS_VERSION=balenaOS 5",
		"BALENA_SERVICE_HANDOVER_COMPLETE_PATH=/tmp/balena/handover-complete",
		"BALENA_SERVICE_NAME=injector",
		"BALENA_SUPERVISOR_ADDRESS=http://127.0.0.1:48484",
		"BALENA_SUPERVISOR_API_KEY=x",
		"BALENA_SUPERVISOR_HOST=127.0.0.1",
		"BALENA_SUPERVISOR_PORT=48484",
		"BALENA_SUPERVISOR_VERSION=16",
		"BALENA_API_KEY=x",
	), Options{})
	if len(s.Warnings) != 0 {
		t.Errorf("it warns %q", s.Warnings)
	}
}

// TestNearMissesMatterWhereNothingElseIsSet and an old token is warned of in any case, without its value.
func TestNearMissesMatterWhereNothingElseIsSet(t *testing.T) {
	s := accepted(t, with(
		"BALENA_USER=x",
		"BALENA_PASWORD=x",
		"balena_username=x",
		"BALENA_API_HOST=",
		"BALENA_TOKEN=S3cret",
		"BALENACLOUD_API_KEY=S3cret",
	), Options{})
	warned := strings.Join(s.Warnings, "\n")
	if len(s.Warnings) != 2 || !strings.Contains(warned, "BALENA_TOKEN is set where the injector runs, and is not used") ||
		!strings.Contains(warned, "BALENACLOUD_API_KEY is set") || strings.Contains(warned, "S3cret") {
		t.Errorf("it warns %q", s.Warnings)
	}
	for name, says := range map[string]string{
		"BALENA_URL":      "BALENA_URL is not read: the API is read from BALENA_API_URL",
		"BALENA_API_URLS": "BALENA_API_URLS is not a variable that the injector knows: did you mean BALENA_API_URL?",
		"balena_api_url":  "balena_api_url is not read: write it in capitals: BALENA_API_URL",
		"injector_ttl":    "injector_ttl is not read: write it in capitals: INJECTOR_TTL",
		"Injector_A_Ttl":  "Injector_A_Ttl is not read: write it in capitals: INJECTOR_A_TTL",
	} {
		wantRefused(t, with("INJECTOR_KEYS=a", name+"=x"), Options{}, says)
	}
}
