package api

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// FuzzReservationBody checks that the decoder never panics, that what it refuses
// is the caller's fault, and that what it takes encoding/json reads the same way.
func FuzzReservationBody(f *testing.F) {
	for _, seed := range []string{
		reserveBody, `{}`, `null`, `[`, `{"scopes":["a"],"amounts":{"tokens":1.5}}`, `{"amounts":{"t":1,"t":2}}`,
		`{"scopes":[null]}`, `{"ttl_seconds":1e3}`, `{"metadata":{"a":"\ud800"}}`, `{"on_expiry":"review"} x`, "{\"scopes\":[\"\xff\"]}",
		`{"ttl_seconds":-0}`, `{"ttl_seconds":9223372036854775808}`, `{"metadata":{"a":{"b":[[[[]]]]}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var ours, theirs earmark.ReservationRequest
		if err := decodeJSON(body, &ours); err != nil {
			require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err))
			return
		}
		require.NoError(t, json.Unmarshal(body, &theirs))
		if len(theirs.Scopes) == 0 {
			theirs.Scopes = nil // an empty list and none are alike to the rules
		}
		if len(theirs.Amounts) == 0 {
			theirs.Amounts = nil
		}
		if len(theirs.Metadata) == 0 {
			theirs.Metadata = nil
		}
		require.Equal(t, theirs, ours)
	})
}
