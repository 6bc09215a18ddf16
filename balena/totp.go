package balena

import (
	"crypto/hmac"
	"crypto/sha1" // RFC 6238's default, and what balena's two-factor login uses
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/balena-injector/injector/key"
)

// totpPeriod is how long a code is good for.
const totpPeriod = 30 * time.Second

// totpStep is the number of the period that now lies in.
func totpStep(now time.Time) int64 { return now.Unix() / int64(totpPeriod/time.Second) }

// TOTP returns the six digits of RFC 6238 for that secret in that period.
// The secret is base32, with or without spaces and padding, or an otpauth:// URL around it.
func TOTP(secret key.Secret, step int64) (string, error) {
	seed, err := totpSeed(secret)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha1.New, seed)
	_ = binary.Write(mac, binary.BigEndian, step)
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[at:at+4])&0x7fffffff%1e6), nil
}

// totpSeed returns the bytes behind a TOTP secret.
func totpSeed(secret key.Secret) ([]byte, error) {
	text := secret.Reveal()
	if u, err := url.Parse(strings.TrimSpace(text)); err == nil && u.Scheme == "otpauth" {
		if text, err = otpSecret(u); err != nil {
			return nil, err
		}
	}
	text = strings.ToUpper(
		strings.TrimRight(strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '-' }), ""), "="))
	seed, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(text)
	if err != nil || len(seed) == 0 {
		return nil, errors.New("the TOTP secret is not base32 (letters A to Z and digits 2 to 7) nor an otpauth:// URL")
	}
	if len(seed) < shortestSeed {
		return nil, errors.New("the TOTP secret is too short: it was cut off")
	}
	return seed, nil
}

// shortestSeed is 80 bits, as in the oldest apps; balena's have more.
const shortestSeed = 10

// otpSecret returns the secret in an otpauth:// URL. What that asks for beside it, and balena's two-factor login does not
// do, is refused.
func otpSecret(u *url.URL) (string, error) {
	query := map[string]string{}
	for name, values := range u.Query() {
		query[strings.ToLower(name)] = values[0]
	}
	if !strings.EqualFold(u.Host, "totp") {
		return "", errors.New("the otpauth:// URL is not of codes that change with the time (totp), as balena's are")
	}
	algorithm := strings.ReplaceAll(strings.TrimPrefix(strings.ToUpper(query["algorithm"]), "HMAC"), "-", "")
	for name, is := range map[string][2]string{"algorithm": {algorithm, "SHA1"}, "digits": {query["digits"], "6"},
		"period": {query["period"], "30"}} {
		if is[0] != "" && is[0] != is[1] {
			return "", fmt.Errorf("the otpauth:// URL has another %s than %s, and balena's two-factor login has no other: "+
				"is it of another service?", name, is[1])
		}
	}
	if query["secret"] == "" {
		return "", errors.New("the otpauth:// URL has no secret in it")
	}
	return query["secret"], nil
}
