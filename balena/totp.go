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
	text := secret.Reveal()
	if u, err := url.Parse(text); err == nil && u.Scheme == "otpauth" {
		text = u.Query().Get("secret")
	}
	text = strings.ToUpper(strings.TrimRight(strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '-' }), ""), "="))
	seed, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(text)
	if err != nil || len(seed) == 0 {
		return "", errors.New("the TOTP secret is not base32 (letters A to Z and digits 2 to 7) nor an otpauth:// URL")
	}
	mac := hmac.New(sha1.New, seed)
	_ = binary.Write(mac, binary.BigEndian, step)
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[at:at+4])&0x7fffffff%1e6), nil
}
