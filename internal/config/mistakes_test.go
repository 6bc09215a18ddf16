package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/balena-injector/injector/balena/balenatest"
)

// TestMistakes makes each mistake that a user can make with a variable. One problem tells of it, and two mistakes are
// told at once.
func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"lines":  "one\ntwo\n",
		"utf16":  "\xff\xfe{\x00{\x00",
		"latin1": "gr\xfc\xdfe {{.Token}}",
		"zeros":  "{\x00{\x00.\x00T\x00o\x00k\x00e\x00n\x00}\x00}\x00",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	server := balenatest.New(balenatest.Options{}) // which nobody starts: it only signs sessions
	session := server.Session(server.DefaultUser(), 0)
	fill := strings.NewReplacer("<DIR>", dir, "<SESSION>", session, "<CUT>", session[:len(session)-4]).Replace
	for _, c := range []struct {
		name string
		set  []string // an empty value removes the variable
		says []string
	}{
		{
			name: "no unit",
			set:  []string{"INJECTOR_TTL", "5"},
			says: []string{"INJECTOR_TTL", "unit"},
		},
		{
			name: "too short",
			set:  []string{"INJECTOR_TTL", "5s"},
			says: []string{"INJECTOR_TTL", "10s"},
		},
		{
			name: "a rate with a unit",
			set:  []string{"INJECTOR_REQUESTS_PER_MINUTE", "5/s"},
			says: []string{"INJECTOR_REQUESTS_PER_MINUTE", "number from 10 to 10000"},
		},
		{
			name: "no requests at all",
			set:  []string{"INJECTOR_REQUESTS_PER_MINUTE", "0"},
			says: []string{"INJECTOR_REQUESTS_PER_MINUTE", "number from 10 to 10000"},
		},
		{
			name: "unknown variable",
			set:  []string{"INJECTOR_TTTL", "1h"},
			says: []string{"INJECTOR_TTTL", "did you mean INJECTOR_TTL?"},
		},
		{
			name: "bad mode",
			set:  []string{"INJECTOR_OUTPUT_MODE", "rw"},
			says: []string{"INJECTOR_OUTPUT_MODE", "octal"},
		},
		{
			name: "bad owner",
			set:  []string{"INJECTOR_OUTPUT_OWNER", "app"},
			says: []string{"INJECTOR_OUTPUT_OWNER", "uid:gid"},
		},
		{
			name: "relative path",
			set:  []string{"INJECTOR_OUTPUT", "token"},
			says: []string{"INJECTOR_OUTPUT", "absolute"},
		},
		{
			name: "bad kind",
			set:  []string{"INJECTOR_KIND", "group"},
			says: []string{"INJECTOR_KIND", "user, fleet or device"},
		},
		{
			name: "no target",
			set:  []string{"INJECTOR_KIND", "fleet"},
			says: []string{"INJECTOR_TARGET", "slug"},
		},
		{
			name: "bad name",
			set:  []string{"INJECTOR_NAME", "it's"},
			says: []string{"INJECTOR_NAME"},
		},
		{
			name: "overlap",
			set:  []string{"INJECTOR_OVERLAP", "9m"},
			says: []string{"INJECTOR_OVERLAP", "quarter"},
		},
		{
			name: "max ttl",
			set:  []string{"INJECTOR_MAX_TTL", "5m"},
			says: []string{"INJECTOR_MAX_TTL", "shorter"},
		},
		{
			name: "bad boolean",
			set:  []string{"INJECTOR_REQUIRE_TMPFS", "maybe"},
			says: []string{"INJECTOR_REQUIRE_TMPFS", "true or false"},
		},
		{
			name: "bad level",
			set:  []string{"INJECTOR_LOG_LEVEL", "loud"},
			says: []string{"INJECTOR_LOG_LEVEL", "debug"},
		},
		{
			name: "bad format",
			set:  []string{"INJECTOR_LOG_FORMAT", "xml"},
			says: []string{"INJECTOR_LOG_FORMAT"},
		},
		{
			name: "bad address",
			set:  []string{"INJECTOR_LISTEN", "9300"},
			says: []string{"INJECTOR_LISTEN", ":22536"},
		},
		{
			name: "delay",
			set:  []string{"INJECTOR_SHUTDOWN_DELAY", "10s"},
			says: []string{"INJECTOR_SHUTDOWN_DELAY", "INJECTOR_SHUTDOWN_TIMEOUT"},
		},
		{
			name: "plain http",
			set:  []string{"BALENA_API_URL", "http://api.example.org"},
			says: []string{"BALENA_API_URL", "https", "INJECTOR_ALLOW_HTTP"},
		},
		{
			name: "no password",
			set:  []string{"BALENA_PASSWORD", ""},
			says: []string{"BALENA_PASSWORD", "BALENA_PASSWORD_FILE"},
		},
		{
			name: "no user name",
			set:  []string{"BALENA_USERNAME", ""},
			says: []string{"BALENA_USERNAME"},
		},
		{
			name: "nothing",
			set:  []string{"BALENA_USERNAME", "", "BALENA_PASSWORD", ""},
			says: []string{"BALENA_USERNAME", "BALENA_SESSION_TOKEN", "BALENA_API_KEY_FILE"},
		},
		{
			name: "both",
			set:  []string{"BALENA_PASSWORD_FILE", "/etc/hostname"},
			says: []string{"BALENA_PASSWORD", "keep one"},
		},
		{
			name: "no such file",
			set:  []string{"BALENA_PASSWORD", "", "BALENA_PASSWORD_FILE", "/no/such/file"},
			says: []string{"BALENA_PASSWORD_FILE", "/no/such/file", "no such file"},
		},
		{
			name: "a password for a path",
			set:  []string{"BALENA_PASSWORD", "", "BALENA_PASSWORD_FILE", "hunter2"},
			says: []string{"1 configuration problem", "BALENA_PASSWORD_FILE", "is not the absolute path of a file"},
		},
		{
			name: "a misspelt password",
			set:  []string{"BALENA_PASSWORD", "", "BALENA_PASWORD_FILE", "/etc/hostname"},
			says: []string{"did you mean BALENA_PASSWORD_FILE?"},
		},
		{
			name: "a misspelt user",
			set:  []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_USER", "x"},
			says: []string{"BALENA_USER is not read", "is read from BALENA_USERNAME"},
		},
		{
			name: "both names",
			set:  []string{"INJECTOR_PASSWORD", "x"},
			says: []string{"BALENA_PASSWORD and INJECTOR_PASSWORD are both set"},
		},
		{
			name: "a wrong password by its other name",
			set:  []string{"BALENA_PASSWORD", "", "INJECTOR_PASSWORD_FILE", "/no/such/file"},
			says: []string{"INJECTOR_PASSWORD_FILE", "/no/such/file"},
		},
		{
			name: "a key that is not named",
			set:  []string{"INJECTOR_OUTPUT", "", "INJECTOR_KEYS", "a", "INJECTOR_C_OUTPUT", "/secrets/x"},
			says: []string{"INJECTOR_C_OUTPUT", "does not name a key c"},
		},
		{
			name: "a hook that is not there",
			set:  []string{"INJECTOR_NOTIFY_COMMAND", "no-such-program"},
			says: []string{"INJECTOR_NOTIFY_COMMAND", "not found"},
		},
		{
			name: "not a session",
			set:  []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_SESSION_TOKEN", "s3cr3t-pasted"},
			says: []string{"BALENA_SESSION_TOKEN", "eyJ"},
		},
		{
			name: "rotation without a password",
			set:  []string{"BALENA_PASSWORD", "", "BALENA_SESSION_TOKEN", "<SESSION>", "INJECTOR_MAX_TTL", "24h"},
			says: []string{"INJECTOR_MAX_TTL", "BALENA_PASSWORD"},
		},
		{
			name: "user key for user keys",
			set:  []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_API_KEY_FILE", "/etc/hostname"},
			says: []string{"BALENA_API_KEY_FILE", "fleet and device"},
		},
		{
			name: "bad totp",
			set:  []string{"BALENA_TOTP_SECRET", "0189"},
			says: []string{"BALENA_TOTP_SECRET", "base32"},
		},
		{
			name: "cache beside the output",
			set:  []string{"INJECTOR_SESSION_CACHE", "<DIR>/session"},
			says: []string{"INJECTOR_SESSION_CACHE"},
		},
		{
			name: "no certificates",
			set:  []string{"INJECTOR_CA_FILE", "/etc/hostname"},
			says: []string{"INJECTOR_CA_FILE", "PEM"},
		},
		{
			name: "quotes around a name",
			set:  []string{"BALENA_USERNAME", `"injector"`},
			says: []string{"BALENA_USERNAME is between quotes", "remove them"},
		},
		{
			name: "quotes around a URL",
			set:  []string{"BALENA_API_URL", `"https://api.example.org"`},
			says: []string{"BALENA_API_URL is between quotes", "remove them"},
		},
		{
			name: "a Latin-1 password",
			set:  []string{"BALENA_PASSWORD", "gr\xfc\xdfe"},
			says: []string{"BALENA_PASSWORD is not usable", "Latin-1", "save it as UTF-8"},
		},
		{
			name: "a password file of two lines",
			set:  []string{"BALENA_PASSWORD", "", "BALENA_PASSWORD_FILE", "<DIR>/lines"},
			says: []string{"BALENA_PASSWORD_FILE is not usable", "more than one line"},
		},
		{
			name: "a UTF-16 password file",
			set:  []string{"BALENA_PASSWORD", "", "BALENA_PASSWORD_FILE", "<DIR>/utf16"},
			says: []string{"BALENA_PASSWORD_FILE is not usable", "UTF-16"},
		},
		{
			name: "a header for a session",
			set:  []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_SESSION_TOKEN", "Bearer <SESSION>"},
			says: []string{"BALENA_SESSION_TOKEN is not usable", "Bearer"},
		},
		{
			name: "a session cut short",
			set:  []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_SESSION_TOKEN", "<CUT>"},
			says: []string{"BALENA_SESSION_TOKEN is not usable", "end is missing"},
		},
		{
			name: "a code for a TOTP secret",
			set:  []string{"BALENA_TOTP_SECRET", "123456"},
			says: []string{"BALENA_TOTP_SECRET is not usable", "QR code"},
		},
		{
			name: "another service's TOTP",
			set:  []string{"BALENA_TOTP_SECRET", "otpauth://totp/x?secret=JBSWY3DPEHPK3PXP&digits=8"},
			says: []string{"BALENA_TOTP_SECRET is not usable", "digits"},
		},
		{
			name: "an e-mail address",
			set:  []string{"BALENA_USERNAME", "", "BALENA_EMAIL", "a@example.org"},
			says: []string{"BALENA_EMAIL is not read", "BALENA_USERNAME"},
		},
		{
			name: "a file for the name",
			set:  []string{"BALENA_USERNAME", "", "BALENA_USERNAME_FILE", "/etc/hostname"},
			says: []string{"BALENA_USERNAME_FILE is not read", "BALENA_USERNAME only"},
		},
		{
			name: "a misspelt URL",
			set:  []string{"BALENA_API_URL", "", "BALENA_API_ULR", "https://api.example.org"},
			says: []string{"BALENA_API_ULR", "did you mean BALENA_API_URL?"},
		},
		{
			name: "another's name for the API",
			set:  []string{"BALENA_API_URL", "", "BALENA_API_HOST", "api.example.org"},
			says: []string{"BALENA_API_HOST is not read", "BALENA_API_URL"},
		},
		{
			name: "small letters",
			set:  []string{"BALENA_PASSWORD", "", "balena_password", "x"},
			says: []string{"balena_password is not read", "capitals"},
		},
		{
			name: "a file for the name, by its other name",
			set:  []string{"BALENA_USERNAME", "", "INJECTOR_USERNAME_FILE", "/etc/hostname"},
			says: []string{"INJECTOR_USERNAME_FILE", "BALENA_USERNAME only"},
		},
		{
			name: "two names for the name",
			set:  []string{"INJECTOR_USERNAME", "other"},
			says: []string{"BALENA_USERNAME and INJECTOR_USERNAME are both set"},
		},
		{
			name: "an old token alone",
			set:  []string{"BALENA_PASSWORD", "", "BALENA_USERNAME", "", "BALENA_TOKEN", "0123456789abcdef0123456789abcdef"},
			says: []string{"BALENA_TOKEN is set, and not used", "needs a login"},
		},
		{
			name: "one problem for a quoted value",
			set:  []string{"INJECTOR_TTL", `"1h"`},
			says: []string{"1 configuration problem:", "INJECTOR_TTL is between quotes"},
		},
		{
			name: "UTF-16 without a mark",
			set:  []string{"INJECTOR_TEMPLATES", "<DIR>/zeros:<DIR>/app.conf"},
			says: []string{"INJECTOR_TEMPLATES", "zero bytes"},
		},
		{
			name: "a home directory",
			set:  []string{"INJECTOR_NOTIFY_COMMAND", "touch ~/x"},
			says: []string{"INJECTOR_NOTIFY_COMMAND", "there is no shell"},
		},
		{
			name: "a shell's line",
			set:  []string{"INJECTOR_NOTIFY_COMMAND", "nginx -s reload && echo ok"},
			says: []string{"INJECTOR_NOTIFY_COMMAND", "there is no shell", `["sh","-c","…"]`},
		},
		{
			name: "quotes for a shell",
			set:  []string{"INJECTOR_NOTIFY_COMMAND", `echo "two words"`},
			says: []string{"INJECTOR_NOTIFY_COMMAND", "there is no shell"},
		},
		{
			name: "a URL with a question mark",
			set:  []string{"BALENA_API_URL", "https://api.example.org?"},
			says: []string{"BALENA_API_URL", "query"},
		},
		{
			name: "a UTF-16 template",
			set:  []string{"INJECTOR_TEMPLATES", "<DIR>/utf16:<DIR>/app.conf"},
			says: []string{"INJECTOR_TEMPLATES", "<DIR>/utf16", "UTF-16"},
		},
		{
			name: "a Latin-1 template",
			set:  []string{"INJECTOR_TEMPLATES", "<DIR>/latin1:<DIR>/app.conf"},
			says: []string{"INJECTOR_TEMPLATES", "<DIR>/latin1", "Latin-1"},
		},
		{
			name: "a line break in a setting",
			set:  []string{"INJECTOR_DESCRIPTION", "one\rtwo"},
			says: []string{"INJECTOR_DESCRIPTION", "line break"},
		},
		{
			name: "a directory in the way",
			set:  []string{"INJECTOR_OUTPUT", "<DIR>/taken"},
			says: []string{"<DIR>/taken", "is a directory", "balena-token"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			vars := map[string]string{
				"BALENA_API_URL":  "https://api.example.org",
				"BALENA_USERNAME": "injector",
				"BALENA_PASSWORD": "correct horse battery",
				"INJECTOR_OUTPUT": filepath.Join(dir, "balena-token"),
				"INJECTOR_TTL":    "10m",
			}
			for i := 0; i < len(c.set); i += 2 {
				vars[c.set[i]] = fill(c.set[i+1])
			}
			text := problemsOf(t, vars)
			for _, say := range c.says {
				if !strings.Contains(text, fill(say)) {
					t.Errorf("%q is not in:\n%s", fill(say), text)
				}
			}
			if len(vars["INJECTOR_OVERLAP"]) == 0 {
				vars["INJECTOR_OVERLAP"] = "soon"
				if both := problemsOf(t, vars); !strings.Contains(both, "INJECTOR_OVERLAP is not a duration") {
					t.Errorf("another mistake is not told with it:\n%s", both)
				}
			}
		})
	}
}

// problemsOf reads an environment that is wrong, and returns the error's text.
func problemsOf(t *testing.T, vars map[string]string) string {
	t.Helper()
	var list []string
	for name, value := range vars {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	_, err := Read(NewEnviron(list), Options{})
	problems, ok := errors.AsType[Problems](err)
	if !ok || len(problems) == 0 {
		t.Fatalf("no problem: %v", err)
	}
	return err.Error()
}

// TestNoValueIsShown pastes a secret into each variable in turn, in forms that make it wrong.
func TestNoValueIsShown(t *testing.T) {
	for _, pasted := range []string{"S3cret", "0123456789abcdef0123456789abcdef", "htps://u:S3cret@h/x", "S3cret http://h/",
		"http://u:S3cret@h:x/", "S3cret;S3cret",
		"S3cret:S3cret", "$S3cret", "1S3cret", "S3cret:80"} {
		for _, v := range Variables() {
			t.Run("", func(t *testing.T) {
				name := v.Name
				env := NewEnviron([]string{name + "=" + pasted, "BALENA_USERNAME=injector", "BALENA_PASSWORD=x"})
				s, err := Read(env, Options{})
				text := fmt.Sprint(err, s.Warnings)
				if strings.Contains(text, "S3cret") || strings.Contains(text, pasted) {
					t.Errorf("%s=%s is shown: %s", name, pasted, text)
				}
			})
		}
	}
}
