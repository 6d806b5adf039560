// Package certificatetest issues certificates for tests.
package certificatetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Authority is a private certificate authority.
type Authority struct {
	// File holds its certificate, for a client.
	File string

	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Pair are the files of a server's certificate and key.
type Pair struct{ Cert, Key string }

// New makes an authority whose certificate is in a file.
func New(tb testing.TB) *Authority {
	tb.Helper()
	a := &Authority{t: tb, File: filepath.Join(tb.TempDir(), "ca.pem"), key: newKey(tb)}
	a.cert = &x509.Certificate{
		SerialNumber: serial(tb), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	require.NoError(tb, err)
	write(tb, a.File, "CERTIFICATE", der)
	return a
}

// NewPair names two files in a directory of their own, which Issue fills.
func NewPair(tb testing.TB) Pair {
	tb.Helper()
	dir := tb.TempDir()
	return Pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

// Issue writes a new certificate for 127.0.0.1 and localhost, valid between the moments, and its
// key. It returns the certificate's serial number.
func (a *Authority) Issue(to Pair, from, until time.Time) *big.Int {
	a.t.Helper()
	key := newKey(a.t)
	leaf := &x509.Certificate{
		SerialNumber: serial(a.t), NotBefore: from, NotAfter: until,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, key.Public(), a.key)
	require.NoError(a.t, err)
	write(a.t, to.Cert, "CERTIFICATE", der)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	write(a.t, to.Key, "PRIVATE KEY", encoded)
	return leaf.SerialNumber
}

// Valid is Issue for a certificate that is valid now.
func (a *Authority) Valid(to Pair) *big.Int {
	a.t.Helper()
	return a.Issue(to, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	return key
}

func serial(tb testing.TB) *big.Int {
	tb.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) //nolint:mnd // bits
	require.NoError(tb, err)
	return n
}

// write replaces the file at once, as tools that renew certificates do.
func write(tb testing.TB, path, kind string, der []byte) {
	tb.Helper()
	fresh := path + ".new"
	require.NoError(tb, os.WriteFile(fresh, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	require.NoError(tb, os.Rename(fresh, path))
}
