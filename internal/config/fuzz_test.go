package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzVariables gives every variable that is not a secret any text: the configuration is refused
// with names and rules, or it has a meaning.
func FuzzVariables(f *testing.F) {
	f.Add(uint8(0), "https://api.example.org", "1h")
	f.Add(uint8(5), "org/fleet", "0440")
	f.Add(uint8(9), "-1s", "99999h")
	f.Add(uint8(13), "::", "1:")
	f.Add(uint8(21), ":70000", "[::1]:x")
	f.Fuzz(func(t *testing.T, which uint8, one, two string) {
		if strings.ContainsRune(one+two, 0) {
			return // no environment has such a value
		}
		var all []string
		for _, v := range Variables() {
			all = append(all, v.Name)
		}
		first, second := all[int(which)%len(all)], all[(int(which)+7)%len(all)]
		s, err := Read(NewEnviron([]string{first + "=" + one, second + "=" + two, "BALENA_USERNAME=somebody",
			"BALENA_PASSWORD=a password of mine"}), Options{})
		if err == nil {
			for _, k := range s.Keys {
				times := k.Times.TTL > 0 && k.Times.Overlap >= 0 && k.Times.Check > 0
				places := len(k.Outputs) > 0 && filepath.IsAbs(k.Outputs[0].Path) && filepath.IsAbs(s.StateDir)
				if !times || !places || k.Outputs[0].Mode&0o002 != 0 {
					t.Errorf("%s=%q %s=%q: accepted as %+v", first, one, second, two, s)
				}
			}
			if len(s.Keys) == 0 {
				t.Errorf("%s=%q %s=%q: no key", first, one, second, two)
			}
			return
		}
		problems, ok := errors.AsType[Problems](err)
		if !ok || len(problems) == 0 {
			t.Fatalf("%s=%q %s=%q: %v", first, one, second, two, err)
		}
		for _, p := range problems {
			if p.Variable == "" || p.Rule == "" {
				t.Errorf("a problem without a name or a rule: %+v", p)
			}
		}
		if strings.Contains(err.Error(), "a password of mine") {
			t.Errorf("it shows the password: %v", err)
		}
	})
}

// FuzzCredentialFiles gives every credential file any content: no error shows it.
func FuzzCredentialFiles(f *testing.F) {
	f.Add([]byte("password\n"), []byte("JBSWY3DPEHPK3PXP"))
	f.Add([]byte("\r\n"), []byte("otpauth://totp/x?secret=JBSWY3DPEHPK3PXP&digits=8"))
	f.Add([]byte("eyJhbGciOiJIUzI1NiJ9.eyJpZCI6MSwiZXhwIjoyfQ.x"), []byte{0xff, 0xfe})
	f.Add([]byte{}, []byte("otpauth://totp/%zz"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		const mark = "q7Xk-marked"
		dir := t.TempDir()
		first, second := filepath.Join(dir, "one"), filepath.Join(dir, "two")
		if err := errors.Join(os.WriteFile(first, append(one, mark+string(two)...), 0o600), os.WriteFile(second, append(two,
			mark+string(one)...), 0o600)); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"BALENA_PASSWORD_FILE", "BALENA_SESSION_TOKEN_FILE"} {
			env := NewEnviron([]string{"BALENA_USERNAME=somebody", name + "=" + first, "BALENA_TOTP_SECRET_FILE=" + second})
			if _, err := Read(env, Options{}); err != nil && strings.Contains(err.Error(), mark) {
				t.Errorf("%s: the error shows what is in the file: %v", name, err)
			}
		}
	})
}
