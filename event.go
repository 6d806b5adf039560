package earmark

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"
)

// EventType says what happened.
type EventType string

// The types of events.
const (
	EventWindowOpened  EventType = "budget.window_opened"       // the first request of a window came
	EventThreshold     EventType = "budget.threshold_crossed"   // the balance reached a threshold, once a window
	EventExhausted     EventType = "budget.exhausted"           // a request was denied for want of room, the first one in its window
	EventGrantExpiring EventType = "grant.expiring"             // what is left of a grant is lost within 7 days
	EventDenied        EventType = "reservation.denied"         // at most one a budget and minute; data.count has how many
	EventExpired       EventType = "reservation.expired"        // the lease ended, or an operator gave the amount back
	EventReview        EventType = "reservation.review"         // the lease ended, and a person must decide
	EventCommittedLate EventType = "reservation.committed_late" // usage came after the expiry and was charged
	EventOverage       EventType = "reservation.overage"        // usage was over the reserved amount; data.rejected says whether it was refused
	EventCorrected     EventType = "reservation.corrected"      // a final charge was corrected

	EventWebhookDisabled EventType = "webhook.disabled" // deliveries to an endpoint failed for so long that none is tried any more
)

// EventTypes are all types of events.
var EventTypes = []EventType{EventWindowOpened, EventThreshold, EventExhausted, EventGrantExpiring, EventDenied, EventExpired, EventReview, EventCommittedLate, EventOverage, EventCorrected, EventWebhookDisabled}

// Event is something that happened to a budget, a reservation or a webhook. It was written in the same transaction as
// its cause, except for EventDenied and EventExhausted: a denial writes nothing, and its event follows within
// about a second.
type Event struct {
	ID            string          `json:"id"` // also the position after which the feed continues
	Type          EventType       `json:"type"`
	CreatedAt     time.Time       `json:"created_at"`
	Scopes        []string        `json:"scopes"`         // of the budget or the reservation; empty for an event of a webhook
	BudgetID      string          `json:"budget_id"`      // empty for an event of a reservation
	ReservationID string          `json:"reservation_id"` // empty for an event of a budget
	WindowStart   *time.Time      `json:"window_start"`   // null for an event of a reservation or a grant
	Data          json.RawMessage `json:"data"`           // an object; its fields depend on the type
}

// EventFilter selects a part of a tenant's events, oldest first. Empty fields select everything.
type EventFilter struct {
	After    string // id of an event, NextAfter of the page before, or AfterNow; empty: from the oldest event on
	Types    []EventType
	BudgetID string
	Limit    int // events a page

	Within []string // only events whose scopes are all among these or below them
}

// AfterNow is the position of the feed after everything that has happened.
const AfterNow = "now"

// EventPage is a part of the feed.
type EventPage struct {
	Data []Event `json:"data"`
	// NextAfter is where the feed continues. It is never empty: more events will come.
	NextAfter string `json:"next_after"`
}

var eventIDForm = regexp.MustCompile(`^evt_[0-9]{1,19}_[0-9]{1,18}$`)

// IsEventID reports whether id has the form of an event's id, such as evt_81234_17.
func IsEventID(id string) bool { return eventIDForm.MatchString(id) }

// ValidateEventType checks a type of events. The error is CodeInvalidRequest and names field.
func ValidateEventType(field string, name EventType) error {
	if !slices.Contains(EventTypes, name) {
		return Invalidf(field, "%q is not a type of events; use some of %s", Clip(string(name)), eventTypeNames())
	}
	return nil
}

func eventTypeNames() string {
	names := make([]string, len(EventTypes))
	for i, name := range EventTypes {
		names[i] = string(name)
	}
	return strings.Join(names, ", ")
}

// Denials are denials of requests for want of room in one budget.
type Denials struct {
	BudgetID string `json:"budget_id"`
	Count    int64  `json:"count"`
	// Of the last of them, as in its Violation.
	Requested int64 `json:"requested"`
	Limit     int64 `json:"limit"`
	Available int64 `json:"available"`
}
