// Package earmark holds the nouns of Earmark: budgets, reservations, amounts, the outcomes
// of the ledger's transitions, and the errors that callers see.
//
// Earmark sets the worst-case amount of an AI request aside before the model is called,
// waits for the usage, charges it and gives the rest back. One Temporal workflow guards
// each reservation; Postgres holds the truth.
//
// This package depends only on the standard library. Technology lives in other packages:
// internal/postgres (the ledger), workflows and activities (what runs in Temporal), api
// (HTTP) and client (the Go client of the HTTP API).
package earmark
