package balena_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/balena-injector/injector/balena"
	"github.com/balena-injector/injector/balena/balenatest"
	"github.com/balena-injector/injector/key"
)

// TestACertificateOutsideItsDatesIsAClockProblem has one that is over, and one that does not count yet: what a wrong
// clock makes of a good one. It is an outage, which is tried again, and the error says to look at the clock.
func TestACertificateOutsideItsDatesIsAClockProblem(t *testing.T) {
	now := time.Now()
	for name, dates := range map[string][2]time.Time{
		"over":    {now.Add(-2 * time.Hour), now.Add(-time.Hour)},
		"not yet": {now.Add(time.Hour), now.Add(2 * time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			certificate, authority := certified(t, dates[0], dates[1])
			s := balenatest.New(balenatest.Options{})
			srv := httptest.NewUnstartedServer(s)
			srv.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
			srv.StartTLS()
			defer srv.Close()
			b := &bench{t: t, server: s}
			b.connect(balena.Config{URL: srv.URL, CAs: authority}, key.User)
			_, _, err := b.issuer.Identify(t.Context())
			wantClass(t, err, key.Outage)
			if err == nil || !strings.Contains(err.Error(), "check the clock") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// certified returns a certificate for this machine with those dates, and whom to trust for it.
func certified(t *testing.T, from, to time.Time) (tls.Certificate, []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
