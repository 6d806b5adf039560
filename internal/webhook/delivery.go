package webhook

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/earmark-dev/earmark"
)

// Target is where an endpoint is called, and with which secrets.
type Target struct {
	URL     string   `json:"url"`
	Secrets []Secret `json:"secrets"` // the newest first
}

// Claim is an endpoint whose workflow should deliver.
type Claim struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
}

// State is what an endpoint needs next.
type State string

// The states of an endpoint.
const (
	StateDue     State = "due"     // events are to be sent
	StateWaiting State = "waiting" // for the next attempt after a failure
	StateIdle    State = "idle"    // no event waits
	StateOver    State = "over"    // it is disabled or deleted
)

// Batch is what an endpoint is to be sent next.
type Batch struct {
	State  State `json:"state"`
	WaitMS int64 `json:"wait_ms"` // with StateWaiting: until the next attempt
	// With StateDue:
	Target
	Events   []earmark.Event `json:"events"`
	After    string          `json:"after"`    // the position before the events
	Attempts int             `json:"attempts"` // failed ones, of the first event
}

// Attempt is the record of one attempt.
type Attempt struct {
	EventID    string            `json:"event_id"`
	Type       earmark.EventType `json:"type"`
	Attempt    int               `json:"attempt"` // 1 for the first one
	At         time.Time         `json:"at"`
	DurationMS int64             `json:"duration_ms"`
	Status     int               `json:"status"` // 0 without an answer
	Error      string            `json:"error"`  // empty for a success
}

// maxErrorBytes bounds the error of an attempt.
const maxErrorBytes = 500

// Failure returns the error of an attempt as a record has it.
func Failure(err error) string {
	if err == nil {
		return ""
	}
	text := earmark.VisibleText(err.Error())
	return strings.ToValidUTF8(text[:min(len(text), maxErrorBytes)], "")
}

// retries are the pauses after the first failures of an event. The last one is that of every later failure.
var retries = []time.Duration{
	5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 12 * time.Hour,
}

// RetryAfter returns the pause after an event's failed attempts, of which there is at least one.
func RetryAfter(failed int) time.Duration { return retries[min(failed, len(retries))-1] }

// body is what a delivery contains. Standard Webhooks names its fields.
type body struct {
	Type      earmark.EventType `json:"type"`
	Timestamp time.Time         `json:"timestamp"` // of the event
	Data      earmark.Event     `json:"data"`      // as the feed has it
}

// MessageOf returns the delivery of an event.
func MessageOf(e earmark.Event) (Message, error) {
	text, err := json.Marshal(body{Type: e.Type, Timestamp: e.CreatedAt, Data: e})
	if err != nil {
		return Message{}, fmt.Errorf("an event does not encode: %w", err)
	}
	return Message{ID: e.ID, Body: text}, nil
}
