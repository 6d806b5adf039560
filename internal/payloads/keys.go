// Package payloads encrypts what Earmark leaves in Temporal: inputs and results of workflows and activities,
// signals, updates, queries, summaries, details, headers, memos and failures. Search attributes stay readable,
// because Temporal searches them.
package payloads

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// keyBytes is the length of a key of AES-256.
const keyBytes = 32

// idBytes is how much randomness the id of a new key has.
const idBytes = 4

// validID keeps ids short: every payload names one, and Temporal limits the length of a summary.
var validID = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,15}$`)

// plainWord stands where the first key would: nothing is encrypted, and what is can be decrypted. So processes with keys and
// processes without any can run side by side while encryption is switched on or off.
const plainWord = "none"

// Keys encrypt with the first key, and decrypt with every one.
type Keys struct {
	first string // id; plainWord to encrypt nothing
	byID  map[string]cipher.AEAD
}

func (k *Keys) encrypts() bool { return k.first != plainWord }

// NewKey returns a line for a file of keys: a new id and a new random key.
func NewKey() string {
	id, key := make([]byte, idBytes), make([]byte, keyBytes)
	_, _ = rand.Read(id) // never fails
	_, _ = rand.Read(key)
	return "k" + hex.EncodeToString(id) + " " + base64.StdEncoding.EncodeToString(key)
}

// ReadKeys reads a file with one key a line: an id, a space, and 32 bytes in base64. Blank lines and lines that begin with # are
// left out. The word none in place of the first key encrypts nothing. Errors name the file and the line, never what is in it.
func ReadKeys(path string) (*Keys, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	keys := &Keys{byID: make(map[string]cipher.AEAD)}
	lines := bufio.NewScanner(strings.NewReader(string(content)))
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if err := keys.add(fields); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, n, err)
		}
	}
	if lines.Err() != nil {
		return nil, fmt.Errorf("%s: a line is too long", path)
	}
	if len(keys.byID) == 0 {
		return nil, fmt.Errorf("%s holds no key; `earmark payload-key` makes one", path)
	}
	return keys, nil
}

func (k *Keys) add(fields []string) error {
	if k.first == "" && len(fields) == 1 && fields[0] == plainWord {
		k.first = plainWord
		return nil
	}
	if len(fields) != 2 || !validID.MatchString(fields[0]) {
		return fmt.Errorf("a key is an id of 1 to 16 characters a-z, 0-9, - and _, a space, and 32 bytes in base64; `earmark payload-key` makes one")
	}
	id := fields[0]
	secret, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil || len(secret) != keyBytes {
		return fmt.Errorf("the key is not 32 bytes in base64")
	}
	if k.byID[id] != nil || id == plainWord {
		return fmt.Errorf("the id is given twice, or is the word %s", plainWord)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return err
	}
	if k.byID[id], err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return err
	}
	if k.first == "" {
		k.first = id
	}
	return nil
}
