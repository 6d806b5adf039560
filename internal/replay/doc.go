// Package replay sends a trace of real AI requests to a running Earmark, as the original
// backends would have: reserve, call the model, commit. Then it checks that the ledger
// holds exactly the usage, to the token.
package replay
