// Package migrations holds the database schema: numbered steps for goose (tables, types and
// indexes) in schema/, and the ledger's functions in functions/, one subject a file.
//
// A numbered step runs once. If one of the functions' files changes, `earmark migrate up`
// replaces all functions, so that each has one definition, in one place.
package migrations

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"strconv"
	"strings"
)

var (
	//go:embed schema/*.sql
	schema embed.FS
	//go:embed functions/*.sql
	functions embed.FS
	//go:embed access.sql
	access string
)

// Schema returns the numbered steps, NNNNN_name.sql, from 1 on without gaps.
func Schema() fs.FS { return sub(schema, "schema") }

// Functions returns the files of the functions, subject.sql.
func Functions() fs.FS { return sub(functions, "functions") }

// FunctionsSQL returns the files of the functions as one script, in the order of their
// names.
func FunctionsSQL() string {
	var script []byte
	for _, name := range files(Functions()) {
		text, err := fs.ReadFile(Functions(), name)
		if err != nil {
			panic(err) // it is embedded
		}
		script = append(script, text...)
	}
	return string(script)
}

// AccessSQL returns what makes the role for `earmark serve` and `earmark worker` and grants what it
// needs. It may run again, and succeeds where this account may not make roles.
func AccessSQL() string { return access }

// FunctionsChecksum returns the SHA-256 of FunctionsSQL in hexadecimal. It identifies the
// functions of this program.
func FunctionsChecksum() string {
	sum := sha256.Sum256([]byte(FunctionsSQL()))
	return hex.EncodeToString(sum[:])
}

// OldestBeside is the oldest schema whose programs go on admitting, settling and expiring on the schema and functions of this one.
// Raise it when a step or a function breaks the calls of older programs.
const OldestBeside = 5

// Latest returns the number of the last numbered step.
func Latest() int64 {
	names := files(Schema())
	number, _, _ := strings.Cut(names[len(names)-1], "_")
	latest, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		panic(err) // it is embedded
	}
	return latest
}

// Purpose returns what a numbered step is for: the comment that it begins with.
func Purpose(name string) string {
	text, err := fs.ReadFile(Schema(), name)
	if err != nil {
		return ""
	}
	var purpose []string
	for line := range strings.Lines(string(text)) {
		comment, ok := strings.CutPrefix(line, "-- ")
		switch {
		case strings.HasPrefix(comment, "+goose"):
		case !ok:
			return strings.Join(purpose, " ")
		default:
			purpose = append(purpose, strings.TrimSpace(comment))
		}
	}
	return strings.Join(purpose, " ")
}

func sub(all embed.FS, dir string) fs.FS {
	part, err := fs.Sub(all, dir)
	if err != nil {
		panic(err) // the name is a constant
	}
	return part
}

// files returns the names of the .sql files, sorted.
func files(in fs.FS) []string {
	names, err := fs.Glob(in, "*.sql")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	return names
}
