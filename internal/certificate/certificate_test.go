package certificate

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/certificate/certificatetest"
)

func TestWhatCannotBeLoadedIsNamed(t *testing.T) {
	t.Parallel()
	authority := certificatetest.New(t)
	good, other := certificatetest.NewPair(t), certificatetest.NewPair(t)
	authority.Valid(good)
	authority.Valid(other)
	expired, future, words, keyAlone := certificatetest.NewPair(t), certificatetest.NewPair(t), certificatetest.NewPair(t), certificatetest.NewPair(t)
	authority.Issue(expired, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	authority.Issue(future, time.Now().Add(time.Hour), time.Now().Add(2*time.Hour))
	authority.Valid(words)
	require.NoError(t, os.WriteFile(words.Cert, []byte("not a certificate"), 0o600))
	authority.Valid(keyAlone)
	key, err := os.ReadFile(keyAlone.Key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(keyAlone.Cert, key, 0o600))

	for says, pair := range map[string]certificatetest.Pair{
		"no such file or directory": {Cert: good.Cert + "x", Key: good.Key},
		"open " + good.Key + "x":    {Cert: good.Cert, Key: good.Key + "x"},
		"do not fit together: tls: private key does not match public key": {Cert: good.Cert, Key: other.Key},
		"expired at": expired, "is valid only from": future, "holds no PEM": words,
		"failed to find certificate PEM data": keyAlone,
	} {
		_, err := Load(pair.Cert, pair.Key, slog.Default())
		require.ErrorContains(t, err, strings.Replace(says, "open ", "stat ", 1))
		require.NotContains(t, err.Error(), string(key[30:60]))
	}
	loaded, err := Load(good.Cert, good.Key, slog.Default())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Hour), loaded.current().Leaf.NotAfter, time.Minute)
}

// A server that keeps running presents each new certificate, and the old one for as long as the
// files hold none that can be used.
func TestTheServerFollowsTheFiles(t *testing.T) {
	t.Parallel()
	authority, pair := certificatetest.New(t), certificatetest.NewPair(t)
	first := authority.Valid(pair)
	var logged bytes.Buffer
	files, err := Load(pair.Cert, pair.Key, slog.New(slog.NewTextHandler(&logged, nil)))
	require.NoError(t, err)
	clock := time.Now()
	files.now = func() time.Time { return clock }

	wait := func() {
		files.mu.Lock()
		defer files.mu.Unlock()
		clock = clock.Add(checkEvery)
	}

	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: http.NotFoundHandler(), TLSConfig: files.Config(), ReadHeaderTimeout: time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { _ = server.Close() })
	address := listener.Addr().String()
	roots, err := Roots(authority.File)
	require.NoError(t, err)
	serial := func() string {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	require.Equal(t, first.String(), serial())

	second := authority.Valid(pair)
	require.Equal(t, first.String(), serial(), "the files are not looked at with every handshake")
	wait()
	require.Equal(t, second.String(), serial())
	require.Contains(t, logged.String(), "The server uses the new TLS certificate.")

	for range 3 { // a broken file is named once, not at each look
		require.NoError(t, os.WriteFile(pair.Key, []byte("broken"), 0o600))
		require.NoError(t, os.Chtimes(pair.Key, clock, time.Unix(1_700_000_000, 0)))
		wait()
		require.Equal(t, second.String(), serial())
	}
	require.Equal(t, 1, strings.Count(logged.String(), "level=ERROR"), logged.String())
	require.Contains(t, logged.String(), "key.pem holds no PEM")
	require.NoError(t, os.Remove(pair.Key))
	wait()
	require.Equal(t, second.String(), serial())
	require.Equal(t, 2, strings.Count(logged.String(), "level=ERROR"), logged.String())

	third := authority.Valid(pair)
	wait()
	require.Equal(t, third.String(), serial())

	_, err = tls.Dial("tcp", address, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	require.ErrorContains(t, err, "protocol version")
}

// The log warns once a day from 14 days before the end on, and no more once there is a new certificate.
func TestACertificateThatExpiresSoonIsWarnedOf(t *testing.T) {
	t.Parallel()
	authority, pair := certificatetest.New(t), certificatetest.NewPair(t)
	begun := time.Now()
	expiry := begun.Add(15 * 24 * time.Hour)
	authority.Issue(pair, begun.Add(-time.Hour), expiry)
	var logged bytes.Buffer
	files, err := Load(pair.Cert, pair.Key, slog.New(slog.NewTextHandler(&logged, nil)))
	require.NoError(t, err)
	clock := begun
	files.now = func() time.Time { return clock }
	warnings := func() int { return strings.Count(logged.String(), "level=WARN") }
	require.WithinDuration(t, expiry, files.Expiry(), time.Second)
	require.Zero(t, warnings())
	for day := 1; day <= 3; day++ {
		clock = clock.Add(24*time.Hour + time.Minute)
		for range 10 {
			clock = clock.Add(checkEvery)
			files.Expiry()
		}
		require.Equal(t, day, warnings(), logged.String())
	}
	authority.Issue(pair, begun.Add(-time.Hour), begun.Add(90*24*time.Hour))
	clock = clock.Add(48 * time.Hour)
	require.WithinDuration(t, begun.Add(90*24*time.Hour), files.Expiry(), time.Second)
	require.Equal(t, 3, warnings(), logged.String())

	logged.Reset()
	authority.Issue(pair, begun.Add(-time.Hour), begun.Add(24*time.Hour))
	_, err = Load(pair.Cert, pair.Key, slog.New(slog.NewTextHandler(&logged, nil)))
	require.NoError(t, err)
	require.Equal(t, 1, warnings(), "at the start")
}

func TestRootsOfAFile(t *testing.T) {
	t.Parallel()
	pair := certificatetest.NewPair(t)
	certificatetest.New(t).Valid(pair)
	_, err := Roots(pair.Key)
	require.ErrorContains(t, err, "holds no certificate")
	_, err = Roots(pair.Key + "x")
	require.ErrorContains(t, err, "no such file")
}
