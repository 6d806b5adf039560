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

// list names a list together with its filter. A cursor carries the name, so that it is refused
// by any other list: a page of one list would begin at an arbitrary row of another.
type list string

// listNameBytes is enough to tell lists and filters apart; a cursor is no secret.
const listNameBytes = 6

func listOf(name string, filter ...any) list {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %q", name, filter))
	return list(base64.RawURLEncoding.EncodeToString(sum[:listNameBytes]))
}

// cursor names the last row of a page that is ordered by time and id.
func (l list) cursor(at time.Time, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(string(l) + " " + at.UTC().Format(time.RFC3339Nano) + " " + id))
}

// parse returns the row that a cursor names; nil for the empty cursor of the first page.
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
	if err != nil || of != string(l) || !utf8.ValidString(id) || strings.ContainsRune(id, 0) { // Postgres would refuse it, as a fault
		return nil, "", badCursor()
	}
	return &parsed, id, nil
}

// parseEntry returns the id of the entry that a cursor names, 0 for the first page.
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
