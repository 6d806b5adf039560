package client

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/pricing"
)

// TestEveryField has the fields of each object in the document and of the client's type for
// it, both ways. The methods are in TestEveryCall.
func TestEveryField(t *testing.T) {
	t.Parallel()
	doc, _ := contract(t)
	types := map[string]any{
		"AddedPrices":        AddedPrices{},
		"AuditPage":          earmark.Page[earmark.AuditRecord]{},
		"AuditRecord":        earmark.AuditRecord{},
		"Balance":            earmark.Balance{},
		"Budget":             earmark.Budget{},
		"BudgetPage":         earmark.Page[earmark.Budget]{},
		"WindowPage":         earmark.Page[earmark.Balance]{},
		"BudgetPatch":        earmark.BudgetPatch{},
		"BudgetRequest":      earmark.BudgetRequest{},
		"Caller":             earmark.Caller{},
		"Check":              Check{},
		"CorrectionRequest":  earmark.CorrectionRequest{},
		"Decision":           earmark.Decision{},
		"Entry":              earmark.Entry{},
		"EntryPage":          earmark.Page[earmark.Entry]{},
		"Estimate":           earmark.Estimate{},
		"Event":              earmark.Event{},
		"EventPage":          earmark.EventPage{},
		"ExplainRequest":     ExplainRequest{},
		"ExplainedPrice":     ExplainedPrice{},
		"Grant":              earmark.Grant{},
		"GrantPage":          earmark.Page[earmark.Grant]{},
		"GrantRequest":       earmark.GrantRequest{},
		"Granted":            earmark.Granted{},
		"IssuedKey":          earmark.IssuedKey{},
		"Key":                earmark.Key{},
		"KeyPage":            earmark.Page[earmark.Key]{},
		"Override":           earmark.Override{},
		"OverridePage":       earmark.Page[earmark.Override]{},
		"OverrideRequest":    earmark.OverrideRequest{},
		"Overview":           earmark.Overview{},
		"OverviewAge":        earmark.OverviewAge{},
		"Price":              pricing.Entry{},
		"PricePage":          PricePage{},
		"PriceTier":          pricing.Tier{},
		"PricesRequest":      PricesRequest{},
		"Problem":            problem{},
		"ReasonRequest":      earmark.ReasonRequest{},
		"Rollover":           earmark.Rollover{},
		"Reservation":        earmark.Reservation{},
		"ReservationBudget":  earmark.ReservationBudget{},
		"ReservationPage":    earmark.StuckPage{},
		"ReservationRequest": earmark.ReservationRequest{},
		"ResponseRecord":     earmark.ResponseRecord{},
		"Search":             earmark.Search{},
		"Stuck":              earmark.Stuck{},
		"Threshold":          earmark.Threshold{},
		"UsagePart":          earmark.UsagePart{},
		"UsageReport":        earmark.UsageReport{},
		"UsageRequest":       earmark.UsageRequest{},
		"UsageSum":           earmark.UsageSum{},
		"Violation":          earmark.Violation{},
		"Delivery":           earmark.Delivery{},
		"DeliveryPage":       earmark.Page[earmark.Delivery]{},
		"IssuedWebhook":      earmark.IssuedWebhook{},
		"Webhook":            earmark.Webhook{},
		"WebhookPage":        earmark.Page[earmark.Webhook]{},
		"WebhookPatch":       earmark.WebhookPatch{},
		"WebhookReplay":      earmark.WebhookReplay{},
		"WebhookRequest":     earmark.WebhookRequest{},
		"WebhookTest":        earmark.WebhookTest{},
		"Window":             earmark.Window{},
	}
	withoutType := map[string]string{
		"Accepted":         "the status 202 says it: Settled.Accepted",
		"AdoptRequest":     "arguments of Adopt, which TestEveryCall checks",
		"Checks":           "a map by name, as Ready returns it",
		"CommitRequest":    "arguments of Commit, CommitResponse, CommitEstimate and CommitBy",
		"ExtendRequest":    "arguments of Extend and ExtendBy",
		"KeyRequest":       "arguments of CreateKey",
		"Payloads":         "Temporal's, for its UI",
		"RotateKeyRequest": "arguments of RotateKey",
		"RevokeKeyRequest": "arguments of RevokeKey",
		"ReleaseRequest":   "arguments of Release and GiveBack",
	}
	left := map[string]map[string]string{ // fields of the document that a type leaves out, with the reason
		"Problem": {
			"type":   "repeats the code",
			"status": "is the answer's own",
			"checks": "Ready alone reads them",
		},
	}
	for name, ref := range doc.Components.Schemas {
		wanted := fieldsOf(ref.Value)
		value, known := types[name]
		if len(wanted) == 0 || withoutType[name] != "" {
			require.False(t, known, name)
			continue
		}
		require.True(t, known, "no type for %s", name)
		wanted = slices.DeleteFunc(wanted, func(field string) bool { return left[name][field] != "" })
		require.ElementsMatch(t, wanted, tagsOf(reflect.TypeOf(value)), name)
		delete(types, name)
	}
	require.Empty(t, types, "not in the document")
}

// fieldsOf names the properties of an object; none for another schema or a map.
func fieldsOf(schema *openapi3.Schema) []string {
	fields := slices.Collect(maps.Keys(schema.Properties))
	for _, part := range schema.AllOf {
		fields = append(fields, fieldsOf(part.Value)...)
	}
	return fields
}

// tagsOf names the fields of a struct in JSON, those of embedded structs among them.
func tagsOf(of reflect.Type) (tags []string) {
	for i := range of.NumField() {
		field := of.Field(i)
		tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Anonymous && tag == "":
			tags = append(tags, tagsOf(field.Type)...)
		case tag != "-" && field.IsExported():
			tags = append(tags, tag)
		}
	}
	return tags
}
