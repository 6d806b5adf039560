package api

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// maxCursorBytes bounds a cursor; the cursors of the ledger are far shorter.
const maxCursorBytes = 512

// query is a call's query parameters, each given at most once.
type query struct{ values url.Values }

// readQuery refuses every parameter that is not among allowed: a caller would believe in a
// filter that the server ignores.
func readQuery(c *gin.Context, allowed ...string) (query, error) {
	values, err := url.ParseQuery(c.Request.URL.RawQuery)
	if err != nil {
		return query{}, earmark.Invalidf("", "the query string is not well formed")
	}
	for name, given := range values {
		if !slices.Contains(allowed, name) {
			return query{}, unknownParameter(name, allowed)
		}
		if len(given) > 1 {
			return query{}, earmark.Invalidf(name, "is given %d times; once is allowed", len(given))
		}
	}
	return query{values}, nil
}

// noQuery refuses every query parameter.
func noQuery(c *gin.Context) error {
	_, err := readQuery(c)
	return err
}

func unknownParameter(name string, allowed []string) error {
	if len(allowed) == 0 {
		return earmark.Invalidf(earmark.Clip(name), "is not a query parameter here; none is allowed")
	}
	return earmark.Invalidf(earmark.Clip(name), "is not a query parameter here; allowed are %s", strings.Join(allowed, ", "))
}

// page reads cursor and limit.
func (q query) page() (cursor string, limit int, err error) {
	cursor = q.values.Get("cursor") // empty means the first page
	if len(cursor) > maxCursorBytes || strings.ContainsFunc(cursor, notPrintable) {
		return "", 0, earmark.Invalidf("cursor", "is not a cursor; give the next_cursor of the page before")
	}
	if !q.values.Has("limit") {
		return cursor, earmark.DefaultPageSize, nil
	}
	text := q.values.Get("limit")
	limit, err = strconv.Atoi(text)
	if err != nil || limit < 1 || limit > earmark.MaxPageSize {
		return "", 0, earmark.Invalidf("limit", "%q is out of range: 1 to %d are allowed", earmark.Clip(text), earmark.MaxPageSize)
	}
	return cursor, limit, nil
}

// scope reads a scope; "" without the parameter.
func (q query) scope(name string) (string, error) {
	if !q.values.Has(name) {
		return "", nil
	}
	scope := q.values.Get(name)
	return scope, earmark.ValidateScope(name, scope)
}

// budgetScope reads the scope of a budget or of a template; "" without the parameter.
func (q query) budgetScope(name string) (string, error) {
	if !q.values.Has(name) {
		return "", nil
	}
	scope := q.values.Get(name)
	return scope, earmark.ValidateBudgetScope(name, scope)
}

// budgetID reads the id of a budget; "" without the parameter.
func (q query) budgetID(name string) (string, error) {
	id := q.values.Get(name)
	if q.values.Has(name) && !earmark.IsBudgetID(id) {
		return "", earmark.Invalidf(name, "%q is not the id of a budget: bud_ and 26 of a-z and 2-7", earmark.Clip(id))
	}
	return id, nil
}

// flag reads true or false; false without the parameter.
func (q query) flag(name string) (bool, error) {
	switch {
	case !q.values.Has(name), q.values.Get(name) == "false":
		return false, nil
	case q.values.Get(name) == "true":
		return true, nil
	}
	return false, earmark.Invalidf(name, "%q is not allowed; use true or false", earmark.Clip(q.values.Get(name)))
}

// moment reads a time; nil without the parameter.
func (q query) moment(name string) (*time.Time, error) {
	if !q.values.Has(name) {
		return nil, nil
	}
	at, err := earmark.ParseTime(name, q.values.Get(name))
	if err != nil {
		return nil, err
	}
	return &at, nil
}

// id reads an id that isID accepts; "" without the parameter.
func (q query) id(name string, isID func(string) bool, example string) (string, error) {
	id := q.values.Get(name)
	if q.values.Has(name) && !isID(id) {
		return "", earmark.Invalidf(name, "%q is not an id such as %s", earmark.Clip(id), example)
	}
	return id, nil
}

func notPrintable(char rune) bool { return char < '!' || char > '~' }
