// Package webhook signs and sends events as Standard Webhooks (https://www.standardwebhooks.com) describes, to
// addresses that the operator allows.
package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// secretPrefix begins every secret, so that a scanner finds one that leaked.
	secretPrefix = "whsec_"
	secretBytes  = 32
	// The lengths of the key that the standard allows.
	minSecretBytes, maxSecretBytes = 24, 64
)

// The headers of a delivery.
const (
	HeaderID        = "webhook-id"        // the same at every attempt: the receiver's idempotency key
	HeaderTimestamp = "webhook-timestamp" // of the attempt, in seconds since 1970
	HeaderSignature = "webhook-signature" // one or more of v1,BASE64, separated by spaces
)

// Secret signs deliveries. Its text is whsec_ and the key in base64.
type Secret struct{ key []byte }

// NewSecret returns a random secret.
func NewSecret() Secret {
	key := make([]byte, secretBytes)
	_, _ = rand.Read(key) // never fails
	return Secret{key}
}

// ParseSecret reads the text of a secret. The error does not quote it.
func ParseSecret(text string) (Secret, error) {
	encoded, found := strings.CutPrefix(text, secretPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !found || err != nil || len(key) < minSecretBytes || len(key) > maxSecretBytes {
		return Secret{}, fmt.Errorf("is not a secret: %s and %d to %d bytes in base64 are needed", secretPrefix, minSecretBytes, maxSecretBytes)
	}
	return Secret{key}, nil
}

// UnmarshalText reads the text of a secret, as ParseSecret does.
func (s *Secret) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSecret(string(text))
	return err
}

// Reveal returns the text of the secret.
func (s Secret) Reveal() string { return secretPrefix + base64.StdEncoding.EncodeToString(s.key) }

// String hides the secret from logs.
func (Secret) String() string { return secretPrefix + "…" }

// Signature returns the header of a delivery: one signature for each secret, the newest first. While a secret is
// rotated a receiver may know either.
func Signature(id string, at time.Time, body []byte, secrets ...Secret) string {
	signed := make([]string, len(secrets))
	for i, secret := range secrets {
		mac := hmac.New(sha256.New, secret.key)
		mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
		mac.Write(body)
		signed[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return strings.Join(signed, " ")
}
