package api

import (
	"net/url"
	"strings"

	"github.com/earmark-dev/earmark"
)

const defaultNamespace = "default"

// show returns the reservation as callers see it: with a link to its workflow, and with
// empty lists and maps instead of null.
func (s *server) show(reservation *earmark.Reservation) earmark.Reservation {
	shown := *reservation
	shown.Scopes = orEmpty(shown.Scopes)
	shown.Budgets = orEmpty(shown.Budgets)
	if shown.Amounts == nil {
		shown.Amounts = earmark.Amounts{}
	}
	if shown.Metadata == nil {
		shown.Metadata = earmark.Metadata{}
	}
	shown.UIURL = ""
	if s.uiBase != "" && shown.WorkflowID != "" {
		shown.UIURL = s.uiBase + url.PathEscape(shown.WorkflowID)
	}
	return shown
}

// workflowBase returns the address of a workflow in Temporal UI, up to its id.
func workflowBase(uiURL, namespace string) string {
	if uiURL == "" {
		return ""
	}
	if namespace == "" {
		namespace = defaultNamespace
	}
	return strings.TrimRight(uiURL, "/") + "/namespaces/" + url.PathEscape(namespace) + "/workflows/"
}
