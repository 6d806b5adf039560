package postgres

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/earmark-dev/earmark"
)

// list identifies a list together with its filter. A cursor contains it, so that every
// other list refuses the cursor: the page would begin at an arbitrary row.
type list string

// listNameBytes is enough to distinguish lists and filters; a cursor is no secret.
const listNameBytes = 6

func listOf(name string, filter ...any) list {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %q", name, filter))
	return list(base64.RawURLEncoding.EncodeToString(sum[:listNameBytes]))
}

// cursor encodes the last row of a page that is ordered by time and id.
func (l list) cursor(at time.Time, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(string(l) + " " + at.UTC().Format(time.RFC3339Nano) + " " + id))
}

// parse returns the row of a cursor; nil for the empty cursor of the first page. The error
// is CodeInvalidRequest.
func (l list) parse(cursor string) (at *time.Time, id string, err error) {
	if cursor == "" {
		return nil, "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, "", badCursor()
	}
	of, row, _ := strings.Cut(string(raw), " ")
	stamp, id, _ := strings.Cut(row, " ")
	parsed, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil || of != string(l) || !utf8.ValidString(id) || strings.ContainsRune(id, 0) { // Postgres would refuse it with a fault
		return nil, "", badCursor()
	}
	return &parsed, id, nil
}

// parseEntry returns the entry id of a cursor; 0 for the first page. The error is
// CodeInvalidRequest.
func (l list) parseEntry(cursor string) (id int64, err error) {
	at, text, err := l.parse(cursor)
	if err != nil || at == nil {
		return 0, err
	}
	if id, err = strconv.ParseInt(text, 10, 64); err != nil {
		return 0, badCursor()
	}
	return id, nil
}

func badCursor() error {
	err := earmark.Errorf(earmark.CodeInvalidRequest, "is not a next_cursor of this list with this filter")
	err.Field = "cursor"
	return err
}
