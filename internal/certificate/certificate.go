// Package certificate reads the certificate of a TLS server from files, and again when they change.
package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	// checkEvery is how often the files are looked at, at most.
	checkEvery = 2 * time.Second
	// warnBefore is how long before the end of a certificate the log warns of it, and
	// warnEvery how often.
	warnBefore = 14 * 24 * time.Hour
	warnEvery  = 24 * time.Hour
)

// Files are a certificate with its chain, and its private key, both PEM.
type Files struct {
	certPath, keyPath string
	log               *slog.Logger
	every             time.Duration
	now               func() time.Time

	mu      sync.Mutex
	pair    *tls.Certificate
	read    stamps // of the files as they were last read, whether they could be used or not
	checked time.Time
	warned  time.Time
}

// stamp identifies a version of a file: its modification time and its size in bytes.
type stamp struct {
	modified time.Time
	bytes    int64
}

type stamps struct{ cert, key stamp }

// Load reads the pair. Its errors name the file and what is wrong with it: it is missing, it holds
// no PEM, the key is not the certificate's, or the certificate is not valid now.
func Load(certPath, keyPath string, log *slog.Logger) (*Files, error) {
	f := &Files{certPath: certPath, keyPath: keyPath, log: log, every: checkEvery, now: time.Now}
	found, err := f.stamps()
	if err != nil {
		return nil, err
	}
	if f.pair, err = f.load(); err != nil {
		return nil, err
	}
	f.read, f.checked = found, f.now()
	f.warn(f.checked)
	return f, nil
}

// Expiry is when the certificate in use expires. It looks at the files, and warns in the log from 14 days before on.
func (f *Files) Expiry() time.Time { return f.current().Leaf.NotAfter }

// warn warns once a day of a certificate that expires soon.
func (f *Files) warn(now time.Time) {
	if expiry := f.pair.Leaf.NotAfter; expiry.Sub(now) < warnBefore && now.Sub(f.warned) >= warnEvery {
		f.warned = now
		f.log.Warn("The TLS certificate expires soon. Put a new one in its place; the server reads it without a restart.", "not_after", expiry, "file", f.certPath)
	}
}

// Config is the configuration of a server with this certificate: TLS 1.2 or newer.
func (f *Files) Config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.current(), nil },
	}
}

// current is the pair in the files. While those cannot be used, it is the last one that could.
func (f *Files) current() *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if now.Sub(f.checked) < f.every {
		return f.pair
	}
	f.checked = now
	defer func() { f.warn(now) }() // after a new one is read
	// Before the files are read: a file that changes meanwhile is read again next time.
	found, err := f.stamps()
	if found == f.read {
		return f.pair
	}
	f.read = found
	if err == nil {
		var pair *tls.Certificate
		if pair, err = f.load(); err == nil {
			f.pair = pair
			f.log.Info("The server uses the new TLS certificate.", "not_after", pair.Leaf.NotAfter)
			return pair
		}
	}
	f.log.Error("The changed TLS certificate cannot be used; the server keeps the old one.", "error", err, "old_not_after", f.pair.Leaf.NotAfter)
	return f.pair
}

// stamps are zero for a file that is not there.
func (f *Files) stamps() (stamps, error) {
	cert, certErr := stampOf(f.certPath)
	key, keyErr := stampOf(f.keyPath)
	return stamps{cert, key}, errors.Join(certErr, keyErr)
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{info.ModTime(), info.Size()}, nil
}

func (f *Files) load() (*tls.Certificate, error) {
	cert, err := readPEM(f.certPath)
	if err != nil {
		return nil, err
	}
	key, err := readPEM(f.keyPath)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s do not fit together: %w", f.certPath, f.keyPath, err)
	}
	switch now := f.now(); {
	case now.After(pair.Leaf.NotAfter):
		return nil, fmt.Errorf("the certificate in %s expired at %s", f.certPath, pair.Leaf.NotAfter.Format(time.RFC3339))
	case now.Before(pair.Leaf.NotBefore):
		return nil, fmt.Errorf("the certificate in %s is valid only from %s on", f.certPath, pair.Leaf.NotBefore.Format(time.RFC3339))
	}
	return &pair, nil
}

func readPEM(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(content); block == nil {
		return nil, fmt.Errorf("%s holds no PEM", path)
	}
	return content, nil
}

// Roots are the system's certificate authorities and those in a PEM file.
func Roots(path string) (*x509.CertPool, error) {
	content, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return pool, nil
}
