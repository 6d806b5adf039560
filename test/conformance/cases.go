// Package conformance holds the rules of Earmark's clients as cases that any language can run, and the server that
// plays the other side: it answers as a case says, cuts, delays and duplicates calls, and checks what the client did
// and said. README.md describes the format and the protocol.
package conformance

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
)

//go:embed cases/*.json
var files embed.FS

// Case is one rule of the clients.
type Case struct {
	Name   string        `json:"name"`
	Real   bool          `json:"real,omitempty"`   // Earmark itself answers, through the proxy
	Budget int64         `json:"budget,omitempty"` // with Real: the limit of the one budget, in tokens, on $scope
	Client ClientOptions `json:"client"`
	Steps  []Step        `json:"steps"`
	// Answers are the answers to each verb, in their order. The last one stands for all
	// later calls. A verb without answers gets Earmark's own or, without Real, a success.
	Answers map[string][]Answer `json:"answers,omitempty"`
	// Calls are the calls that have to arrive, in this order, and no others. Nil: not
	// checked.
	Calls  []WantedCalls `json:"calls"`
	Ledger *Ledger       `json:"ledger,omitempty"`

	// Transport has the options of a guarded transport. The steps are calls of a provider
	// through it.
	Transport *TransportOptions `json:"transport,omitempty"`
	// Provider has the provider's answers, in their order. The last one stands for all later
	// calls.
	Provider     []Answer `json:"provider,omitempty"`
	ProviderAway bool     `json:"provider_away,omitempty"` // nothing listens where the provider should be
	// Sent are the bodies that the provider gets, byte by byte, and no others.
	Sent []string `json:"sent,omitempty"`
}

// TransportOptions are the options of a guarded transport.
type TransportOptions struct {
	Scopes          []string `json:"scopes"`
	OnExpiry        string   `json:"on_expiry"`
	Units           []string `json:"units,omitempty"`
	MaxOutputTokens int64    `json:"max_output_tokens,omitempty"`
	RequireBudget   bool     `json:"require_budget,omitempty"`
	PassUnknown     bool     `json:"pass_unknown,omitempty"`
	FailOpen        bool     `json:"fail_open,omitempty"`
}

// ProviderCall is a call of a provider, as its SDK makes it.
type ProviderCall struct {
	Method  string            `json:"method,omitempty"` // empty means POST
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers,omitempty"`
	Text    string            `json:"text,omitempty"` // the body, byte by byte
	// LeavesAfter is the number of events after which the caller leaves a stream, by Leaves:
	// "abort" ends its context (aborts its signal), "close" closes the body.
	LeavesAfter int    `json:"leaves_after,omitempty"`
	Leaves      string `json:"leaves,omitempty"`
}

// ClientOptions are the options of the client that runs the case.
type ClientOptions struct {
	APIKey        string `json:"api_key,omitempty"`
	MaxAttempts   int    `json:"max_attempts,omitempty"`
	SettleLimitMS int64  `json:"settle_limit_ms,omitempty"`
}

// Step is one call of a method of the client, and the result that it must have.
type Step struct {
	Op      string          `json:"op"`
	Key     string          `json:"key,omitempty"`
	ID      string          `json:"id,omitempty"`     // $id is the id of the last reservation, new webhook or new grant that a step returned
	Budget  string          `json:"budget,omitempty"` // of a grant; $budget is the id of the last new budget
	Request json.RawMessage `json:"request,omitempty"`
	Work    *Work           `json:"work,omitempty"`
	Call    *ProviderCall   `json:"call,omitempty"`
	Result  map[string]any  `json:"result"`
}

// Work is what the function of a guard does, in this order.
type Work struct {
	TakesMS      int64   `json:"takes_ms,omitempty"`
	Meter        []Count `json:"meter,omitempty"`
	CallerLeaves bool    `json:"caller_leaves,omitempty"` // the caller's context ends, and the function fails by that
	Fails        string  `json:"fails,omitempty"`         // it fails with this message
	NothingSent  bool    `json:"nothing_sent,omitempty"`  // and says that nothing was sent
}

// Count is one call of the meter.
type Count struct {
	Add map[string]int64 `json:"add,omitempty"`
	Set map[string]int64 `json:"set,omitempty"`
}

// Answer is what happens to one call.
type Answer struct {
	Status  int               `json:"status,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    json.RawMessage   `json:"body,omitempty"`
	Text    *string           `json:"text,omitempty"`    // in place of Body: not JSON
	Problem map[string]any    `json:"problem,omitempty"` // in place of Body: as Earmark writes errors
	// Cut closes the connection: "before" the request is taken, "after" it is taken, or in
	// the "middle" of the answer.
	Cut       string `json:"cut,omitempty"`
	DelayMS   int64  `json:"delay_ms,omitempty"`  // before the answer
	Duplicate bool   `json:"duplicate,omitempty"` // with Real: Earmark gets the call twice
	Hang      bool   `json:"hang,omitempty"`      // no answer until the client gives up
	Times     int    `json:"times,omitempty"`     // how often in a row; 0 means once
	// Events are a provider's stream, in place of Body: each text is sent as it is, anything
	// else as the JSON of one event. After them the connection is cut in the "middle", or hangs.
	Events []json.RawMessage `json:"events,omitempty"`
}

// WantedCalls are calls of one verb in a row. In JSON a verb alone means one call.
type WantedCalls struct {
	To      string         `json:"to"`
	Times   int            `json:"times"`
	AtLeast int            `json:"at_least"` // with AtMost, in place of Times
	AtMost  int            `json:"at_most"`
	WaitMS  int64          `json:"wait_ms"` // between two of them, at least
	Key     string         `json:"key"`
	Body    map[string]any `json:"body"`
}

// UnmarshalJSON also takes a verb alone.
func (w *WantedCalls) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		*w = WantedCalls{Times: 1}
		return json.Unmarshal(data, &w.To)
	}
	type plain WantedCalls
	if err := decodeStrictly(data, (*plain)(w)); err != nil {
		return err
	}
	if w.Times == 0 && w.AtLeast == 0 && w.AtMost == 0 {
		w.Times = 1
	}
	return nil
}

// Ledger is what Earmark itself must show in the end.
type Ledger struct {
	Reserved  int64    `json:"reserved"`
	Committed int64    `json:"committed"`
	States    []string `json:"states"` // of the reservations, newest first
}

// Cases returns every case.
func Cases() ([]Case, error) {
	var all []Case
	names := map[string]bool{}
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := files.ReadFile(path)
		if err != nil {
			return err
		}
		var cases []Case
		if err := decodeStrictly(data, &cases); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, c := range cases {
			if names[c.Name] {
				return fmt.Errorf("%s: two cases have the name %q", path, c.Name)
			}
			names[c.Name] = true
		}
		all = append(all, cases...)
		return nil
	})
	return all, err
}

// decodeStrictly refuses unknown fields: a typing error must not weaken a case.
func decodeStrictly(data []byte, target any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(target)
}
