// Package earmark holds the nouns of Earmark: budgets, reservations, amounts,
// the outcomes of the ledger's transitions, and the errors that callers see.
//
// Earmark sets the worst-case amount of an AI request aside before the model is
// called, waits to hear what was really used, charges that and gives the rest
// back. One Temporal workflow guards each reservation; Postgres holds the truth.
//
// This package depends on the standard library alone. Technology lives in the
// packages below it: internal/postgres (the ledger), workflows and activities
// (the guardian), api (HTTP) and client (Go client of the HTTP API).
package earmark
