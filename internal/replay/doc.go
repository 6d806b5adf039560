// Package replay sends a trace of real AI requests to a running Earmark, as the
// backends that made them would have: reserve, call the model, commit. Then it
// checks that the ledger holds exactly what was used, to the token.
package replay
