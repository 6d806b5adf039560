package earmark

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Limits of webhooks.
const (
	MaxWebhooks       = 50  // endpoints of one tenant
	MaxWebhookFilters = 100 // budgets, and scopes, that one endpoint names
)

// WebhookSecretOverlap is for how long the former secret of an endpoint signs too after a rotation.
const WebhookSecretOverlap = 24 * time.Hour

// EventWebhookTest is the type of the delivery that a test sends. It is in no feed.
const EventWebhookTest EventType = "webhook.test"

// Webhook is an endpoint that events are delivered to. Its secret is shown at its creation and its rotation alone.
type Webhook struct {
	ID      string      `json:"id"`
	URL     string      `json:"url"`
	Types   []EventType `json:"types"`   // the types that it receives; empty: all
	Budgets []string    `json:"budgets"` // only events of these budgets; empty: all events
	Scopes  []string    `json:"scopes"`  // only events on these scopes or below them; empty: all events
	Enabled bool        `json:"enabled"`
	// DisabledReason says why nothing is delivered; empty if it is enabled.
	DisabledReason string `json:"disabled_reason"`
	// After is the position in the feed: every event up to it is delivered, or not wanted.
	After string `json:"after"`
	// FailingSince is the first failure since the last success; null: the last attempt succeeded, or there was none.
	FailingSince  *time.Time `json:"failing_since"`
	LastError     string     `json:"last_error"`      // of the last attempt if it failed
	NextAttemptAt *time.Time `json:"next_attempt_at"` // after a failure; null: at once
	// FormerSecretUntil is when the secret before the last rotation stops signing; null: one secret signs.
	FormerSecretUntil *time.Time `json:"former_secret_until"`
	CreatedAt         time.Time  `json:"created_at"`
}

// IssuedWebhook is an endpoint with its secret.
type IssuedWebhook struct {
	Webhook
	Secret string `json:"secret"` // whsec_ and the key in base64, as Standard Webhooks' libraries take it
}

// WebhookRequest asks for a new endpoint. It receives the events from now on.
type WebhookRequest struct {
	URL     string      `json:"url"`
	Types   []EventType `json:"types,omitempty"`
	Budgets []string    `json:"budgets,omitempty"`
	Scopes  []string    `json:"scopes,omitempty"`
}

// Validate checks the request but for the URL, which depends on the operator. The error is CodeInvalidRequest and
// names the field.
func (r WebhookRequest) Validate() error {
	if err := distinct("types", r.Types, len(EventTypes), ValidateEventType); err != nil {
		return err
	}
	if err := distinct("budgets", r.Budgets, MaxWebhookFilters, func(field, id string) error {
		if !IsBudgetID(id) {
			return Invalidf(field, "%q is not the id of a budget, such as bud_7sk2nq4d5aaaaaaaaaaaaaaaaa", Clip(id))
		}
		return nil
	}); err != nil {
		return err
	}
	return distinct("scopes", r.Scopes, MaxWebhookFilters, ValidateScope)
}

// distinct checks a list of at most most different items.
func distinct[T ~string](field string, items []T, most int, check func(field string, item T) error) error {
	if len(items) > most {
		return Invalidf(field, "has %d items; at most %d are allowed", len(items), most)
	}
	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", field, i)
		if err := check(at, item); err != nil {
			return err
		}
		if slices.Contains(items[:i], item) {
			return Invalidf(at, "%q is named twice", Clip(string(item)))
		}
	}
	return nil
}

// WebhookPatch changes an endpoint. A nil field leaves its value unchanged; an empty list selects everything.
type WebhookPatch struct {
	URL     *string      `json:"url,omitempty"`
	Types   *[]EventType `json:"types,omitempty"`
	Budgets *[]string    `json:"budgets,omitempty"`
	Scopes  *[]string    `json:"scopes,omitempty"`
	// Enabled false stops deliveries. True resumes them with the event at which they stopped, and makes an attempt at once.
	Enabled *bool `json:"enabled,omitempty"`
}

// Validate checks the patch but for the URL. The error is CodeInvalidRequest and names the field.
func (p WebhookPatch) Validate() error {
	if p.URL == nil && p.Types == nil && p.Budgets == nil && p.Scopes == nil && p.Enabled == nil {
		return Invalidf("", "nothing to change: give at least one of url, types, budgets, scopes and enabled")
	}
	var r WebhookRequest
	if p.Types != nil {
		r.Types = *p.Types
	}
	if p.Budgets != nil {
		r.Budgets = *p.Budgets
	}
	if p.Scopes != nil {
		r.Scopes = *p.Scopes
	}
	return r.Validate()
}

// MarshalJSON writes an empty list as [], also if it is nil.
func (p WebhookPatch) MarshalJSON() ([]byte, error) {
	type plain WebhookPatch
	if p.Types != nil && *p.Types == nil {
		p.Types = &[]EventType{}
	}
	for _, list := range []**[]string{&p.Budgets, &p.Scopes} {
		if *list != nil && **list == nil {
			*list = &[]string{}
		}
	}
	return json.Marshal(plain(p))
}

// WebhookReplay asks to deliver events again, in their order. The id of a delivery is that of the event, as before.
type WebhookReplay struct {
	From time.Time  `json:"from"`         // events from this time on
	To   *time.Time `json:"to,omitempty"` // events before this time; null: now
}

// Validate checks the request at the time now. The error is CodeInvalidRequest and names the field.
func (r WebhookReplay) Validate(now time.Time) error {
	switch {
	case r.From.IsZero():
		return Invalidf("from", "is missing; give the time of the first event, such as 2027-01-31T00:00:00Z")
	case r.From.After(now):
		return Invalidf("from", "%s is in the future", r.From.UTC().Format(time.RFC3339))
	case r.To != nil && !r.To.After(r.From):
		return Invalidf("to", "is not after from; the replay would be empty")
	}
	return nil
}

// Delivery is one attempt to deliver an event to an endpoint.
type Delivery struct {
	ID         int64     `json:"id"`
	EventID    string    `json:"event_id"`
	Type       EventType `json:"type"`
	Attempt    int       `json:"attempt"` // 1 for the first one
	At         time.Time `json:"at"`
	DurationMS int64     `json:"duration_ms"`
	Status     int       `json:"status"` // of the answer; 0 without one
	Error      string    `json:"error"`  // why the attempt was no success; empty for a success
	// NextAttemptAt is when the event is tried again; null after a success, and if the endpoint was disabled.
	NextAttemptAt *time.Time `json:"next_attempt_at"`
}

// WebhookTest is what an endpoint answered to a test.
type WebhookTest struct {
	EventID    string `json:"event_id"` // the webhook-id of the delivery
	Status     int    `json:"status"`   // of the answer; 0 without one
	Error      string `json:"error"`    // why the test failed; empty if it succeeded
	DurationMS int64  `json:"duration_ms"`
}

const webhookPrefix = "whk_"

var webhookIDForm = regexp.MustCompile(`^whk_[a-z2-7]{26}$`)

// NewWebhookID returns a random id of an endpoint.
func NewWebhookID() string {
	const idBytes = 16
	raw := make([]byte, idBytes)
	_, _ = rand.Read(raw) // never fails
	return webhookPrefix + idEncoding.EncodeToString(raw)
}

// IsWebhookID reports whether id has the form of an endpoint's id.
func IsWebhookID(id string) bool { return webhookIDForm.MatchString(id) }
