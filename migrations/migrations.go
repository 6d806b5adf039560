// Package migrations holds the database schema as goose migrations: the tables,
// and the ledger's transitions as PL/pgSQL functions, one subject a file.
package migrations

import "embed"

// FS holds the migrations, NNNNN_name.sql.
//
//go:embed *.sql
var FS embed.FS
