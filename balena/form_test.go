package balena_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// TestForms has what people paste in place of a credential, and what they may.
func TestForms(t *testing.T) {
	server := balenatest.New(balenatest.Options{})
	token := server.Session(server.DefaultUser(), 0)
	const userKey, seed = "0123456789abcdef0123456789abcdef", "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
	name := func(s key.Secret) error { return balena.CheckUsername(s.Reveal()) }
	checks := map[string]func(key.Secret) error{
		"name":     name,
		"password": balena.CheckPassword,
		"totp":     balena.CheckTOTPSecret,
		"session":  balena.CheckSessionToken,
		"key":      balena.CheckUserKey,
	}
	good := map[string][]string{
		"name":     {"injector", "a.b-c_d", "somebody+tag@example.org", "Grüße"},
		"password": {"$money", "hunter2", "correct horse battery", "Grüße", `"quoted"`, "a=b", "{brace", "Bearer of news", " with blanks "},
		"totp": {
			seed,
			strings.ToLower(seed),
			"JBSW Y3DP EHPK 3PXP",
			"otpauth://totp/balena:me?secret=" + seed + "&issuer=balena",
			"otpauth://totp/x?secret=" + seed + "&algorithm=SHA1&digits=6&period=30",
			"otpauth://totp/x?SECRET=" + seed + "&algorithm=HmacSHA1",
			"otpauth://totp/x?secret=" + seed + "&algorithm=SHA-1",
		},
		"session": {token, " " + token + " "},
		"key":     {userKey, "a-key.with_more~than/letters+"},
	}
	for name, list := range good {
		for _, text := range list {
			if err := checks[name](key.NewSecret(text)); err != nil {
				t.Errorf("%s %q: %v", name, text, err)
			}
		}
	}
	anything := map[string]string{
		"caf\xe9": "Latin-1", "\xff\xfec\x00a\x00f\x00": "UTF-16", "\xfe\xff\x00c": "UTF-16", "\ufeffcaf": "byte order mark",
		"one\ntwo": "more than one line",
		"one\rtwo": "more than one line", "zero\x00byte": "control character", "a\tb": "control character",
	}
	bad := map[string]map[string]string{
		"password": {
			`{"token":"x"}`:            "JSON",
			"BALENA_PASSWORD=x":        "name of a variable",
			"INJECTOR_PASSWORD=x":      "name of a variable",
			"export BALENA_PASSWORD=x": "name of a variable",
			"password=x":               "name of a variable",
			"BALENA_PASSWORD: x":       "name of a variable",
			"${BALENA_PASSWORD}":       "nobody has replaced",
			"$BALENA_PASSWORD":         "nobody has replaced",
			token:                      "session token",
		},
		"name": {
			"$USER":              "no user name",
			"USERNAME: injector": "name of a variable",
			"<injector>":         "no user name",
			"“injector”":         "no user name",
			"injector,":          "no user name",
			"two words":          "no user name",
		},
		"totp": {
			`{"token":"x"}`: "JSON",
			"otpauth://hotp/x?secret=" + seed + "&counter=1":        "totp",
			"otpauth://totp/x?secret=" + seed + "&Algorithm=SHA512": "algorithm",
			"ABCD":                       "too short",
			"otpauth://totp/x":           "no secret",
			"123456":                     "one code",
			"Bearer " + seed:             "Bearer",
			`"` + seed + `"`:             "quotes",
			"BALENA_TOTP_SECRET=" + seed: "name of a variable",
			"not base32!":                "base32",
			"otpauth://totp/x?secret=" + seed + "&algorithm=SHA256": "algorithm",
			"otpauth://totp/x?secret=" + seed + "&digits=8":         "digits",
			"otpauth://totp/x?secret=" + seed + "&period=60":        "period",
		},
		"session": {
			`{"token":"x"}`:                  "JSON",
			"Bearer " + token:                "Bearer",
			"Authorization: Bearer " + token: "header",
			`"` + token + `"`:                "quotes",
			"'" + token + "'":                "quotes",
			"BALENA_SESSION_TOKEN=" + token:  "name of a variable",
			"TOKEN=" + token:                 "name of a variable",
			token[:len(token)/2]:             "session token",
			token[:len(token)-1]:             "end is missing",
			"Bearer" + token:                 "something before it",
			"balena_session_token=" + token:  "name of a variable",
			token[3:]:                        "lost its beginning",
			token + "x":                      "behind its end",
			userKey:                          "API key",
			"":                               "session token",
		},
		"key": {
			`{"token":"x"}`:             "JSON",
			"Bearer " + userKey:         "Bearer",
			`"` + userKey + `"`:         "quotes",
			"BALENA_API_KEY=" + userKey: "name of a variable",
			token:                       "session token",
			"two words":                 "blanks",
			"abcdefg":                   "7 characters",
			`"` + userKey:               "quotes",
			userKey + ",":               "blanks",
			"$BALENA_API_KEY":           "nobody has replaced",
			"api_key=" + userKey:        "name of a variable",
		},
	}
	for name, check := range checks {
		for _, list := range []map[string]string{anything, bad[name]} {
			for text, says := range list {
				err := check(key.NewSecret(text))
				if err == nil || !strings.Contains(err.Error(), says) {
					t.Errorf("%s %q: %v, which does not say %q", name, text, err, says)
				} else if len(text) > 8 && strings.Contains(err.Error(), text) {
					t.Errorf("%s: %v shows what was pasted", name, err)
				}
			}
		}
	}
}

// TestAFormThatIsWrongCostsNoRequest gives each kind of credential in a form that it cannot have.
func TestAFormThatIsWrongCostsNoRequest(t *testing.T) {
	for name, creds := range map[string]balena.Credentials{
		"password": {Username: "injector", Password: source("caf\xe9")},
		"totp":     {Username: "injector", Password: source("correct horse battery"), TOTP: source("123456")},
		"session":  {Session: source("eyJ\neyJ")},
		"user key": {UserKey: source("a\nb")},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, balenatest.Options{}, key.Fleet)
			account, err := balena.NewAccount(b.client, balena.AccountConfig{Credentials: creds})
			if err != nil {
				t.Fatal(err)
			}
			_, err = account.Tend(t.Context(), nil)
			wantClass(t, err, key.Refused)
			if n := b.server.Count(""); n != 0 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// sessionWith is a session token with those claims, signed by nobody.
func sessionWith(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none"}`)) + "." + encode([]byte(claims)) + ".x"
}

// TestSessionsWithOddTimes has one that ends after the year 9999, which no text can say, and one that does not say when
// it was issued, which must not be renewed over and over.
func TestSessionsWithOddTimes(t *testing.T) {
	ends, err := balena.SessionExpiry(key.NewSecret(sessionWith(`{"id":1,"exp":999999999999999,"authTime":9999999999999999}`)))
	if _, e := ends.MarshalJSON(); err != nil || e != nil {
		t.Errorf("%v, %v", err, e)
	}
	b := newBench(t, balenatest.Options{}, key.User)
	token := sessionWith(
		fmt.Sprintf(
			`{"id":%d,"exp":%d,"authTime":%d}`,
			b.server.DefaultUser().ID,
			time.Now().Add(time.Hour).Unix(),
			time.Now().UnixMilli(),
		),
	)
	b.server.Fail(balenatest.Fault{Kind: "login", Status: 200, Body: token})
	next, err := b.account.Tend(t.Context(), nil)
	if err != nil || next < 25*time.Minute {
		t.Errorf("to be looked after again in %v, %v", next, err)
	}
}

// TestAPageTellsNoTime has a captive portal that answers 200, and a gateway that answers 401, with a date of their own.
func TestAPageTellsNoTime(t *testing.T) {
	for name, fault := range map[string]balenatest.Fault{
		"a page":         {Status: 200, Body: "<html>welcome"},
		"another's JSON": {Status: 200, Body: `{"status":"ok"}`},
		"a 401":          {Status: 401, Body: "<html>log in"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, balenatest.Options{}, key.User)
			k := b.mint()
			before, _ := b.client.Skew()
			b.server.ShiftClock(25 * 365 * 24 * time.Hour) // the date of each answer
			b.server.Fail(fault)
			_, _ = b.issuer.Find(t.Context(), k)
			_ = b.issuer.Accepts(t.Context(), k)
			if after, _ := b.client.Skew(); (after - before).Abs() > time.Minute {
				t.Errorf("the clock was ahead by %v, and is by %v", before, after)
			}
		})
	}
}

// TestURLsThatAreNone are refused before anything is sent.
func TestURLsThatAreNone(t *testing.T) {
	for _, url := range []string{"https://host?", "https://host#", "https://host?x", "https://host:", "https://host:0",
		"https://host:99999", `"https://host"`, "'https://host'",
		"https://user@host", "https://user:secret@host", "ftp://host", "host", "https://"} {
		if _, err := balena.CheckURL(url, true); err == nil {
			t.Errorf("%s passes", url)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%v shows a password", err)
		}
	}
	if _, err := balena.CheckURL("https://host:8443/", false); err != nil {
		t.Error(err)
	}
}
