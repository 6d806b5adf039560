// Package keys makes and reads the text of API keys:
//
//	emk_<id>_<secret><checksum>
//
// The id is 12 of a-z and 0-9, the secret 256 random bits as 43 digits of base62, and the
// checksum the CRC-32 of everything before it as 6 digits of base62. So a secret scanner
// recognises a key by its form, and a typing error is distinguished from an unknown key
// without a look-up.
package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"hash/crc32"
	"math/big"
	"regexp"
	"strings"

	"github.com/earmark-dev/earmark"
)

const (
	// Prefix begins every key, so that scanners and people recognise one.
	Prefix = "emk_"

	idAlphabet    = "abcdefghijklmnopqrstuvwxyz0123456789"
	base62        = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	secretBytes   = 32 // random
	secretDigits  = 43 // enough for them
	checkDigits   = 6  // enough for a CRC-32
	textBytes     = len(Prefix) + earmark.KeyIDBytes + 1 + secretDigits + checkDigits
	checkedBytes  = textBytes - checkDigits
	secretStarts  = len(Prefix) + earmark.KeyIDBytes + 1
	redactedEnd   = "_…"
	unbiasedBelow = 256 / len(idAlphabet) * len(idAlphabet) // random bytes from here up would favour some characters
)

// The errors of a text that is not a key. Their messages contain nothing of the text.
var (
	ErrMalformed = errors.New("malformed: a key has the form emk_<id>_<secret>")
	ErrMistyped  = errors.New("mistyped: the checksum does not fit")
)

// InText finds keys in a text, also with a wrong checksum or cut off.
var InText = regexp.MustCompile(Prefix + `([a-z0-9]{12})_[0-9A-Za-z]*`)

// WithoutSecrets returns the text with the ids of the keys in it, and without their secrets.
func WithoutSecrets(text string) string {
	return InText.ReplaceAllString(text, Prefix+"${1}"+redactedEnd)
}

// Token is a key as its holder presents it. Only Text returns its secret; printing a Token
// never shows it.
type Token struct {
	ID     string
	secret string
}

// New returns a new random key.
func New() Token {
	raw := make([]byte, secretBytes)
	_, _ = rand.Read(raw) // never fails, see crypto/rand
	return Token{ID: newID(), secret: digits(new(big.Int).SetBytes(raw), secretDigits)}
}

func newID() string {
	var id []byte
	raw := make([]byte, 1)
	for len(id) < earmark.KeyIDBytes {
		_, _ = rand.Read(raw) // never fails, see crypto/rand
		if int(raw[0]) < unbiasedBelow {
			id = append(id, idAlphabet[int(raw[0])%len(idAlphabet)])
		}
	}
	return string(id)
}

// Parse reads a key. The error is ErrMalformed or ErrMistyped.
func Parse(text string) (Token, error) {
	if len(text) != textBytes || !strings.HasPrefix(text, Prefix) || text[secretStarts-1] != '_' {
		return Token{}, ErrMalformed
	}
	id, rest := text[len(Prefix):secretStarts-1], text[secretStarts:]
	if !earmark.IsKeyID(id) || strings.Trim(rest, base62) != "" {
		return Token{}, ErrMalformed
	}
	if checksum(text[:checkedBytes]) != text[checkedBytes:] { // not secret: anyone with the text can compute it
		return Token{}, ErrMistyped
	}
	return Token{ID: id, secret: rest[:secretDigits]}, nil
}

// Text returns the whole key, only for its holder.
func (t Token) Text() string {
	text := Prefix + t.ID + "_" + t.secret
	return text + checksum(text)
}

// Hash returns the SHA-256 of the secret. A secret has 256 random bits, so a slow hash
// would add nothing.
func (t Token) Hash() [sha256.Size]byte { return sha256.Sum256([]byte(t.secret)) }

// String returns the key without its secret, for logs.
func (t Token) String() string { return Prefix + t.ID + redactedEnd }

// GoString is String, so that %#v does not print the secret.
func (t Token) GoString() string { return t.String() }

// Equal compares two hashes in a time that does not depend on them.
func Equal(a, b [sha256.Size]byte) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

func checksum(text string) string {
	return digits(big.NewInt(int64(crc32.ChecksumIEEE([]byte(text)))), checkDigits)
}

// digits writes n in base62 with leading zeros.
func digits(n *big.Int, width int) string {
	text := make([]byte, width)
	base, digit := big.NewInt(int64(len(base62))), new(big.Int)
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, digit)
		text[i] = base62[digit.Int64()]
	}
	return string(text)
}
