package fake

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// What the fake says is what the API's document allows.
func TestWords(t *testing.T) {
	t.Parallel()
	e := &Earmark{Limit: 100, RejectOverage: true, Intercept: func(_ string, nth int) http.HandlerFunc {
		if nth == 7 {
			return Unavailable()
		}
		return nil
	}}
	unknown := "/v1/reservations/" + earmark.NewReservationID()
	path := func(key string) string {
		return "/v1/reservations/" + earmark.ReservationID(earmark.DefaultTenant, key)
	}
	for _, test := range []struct {
		key, path, body string
		status          int
	}{
		{"a", "/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":60}}`, 201},
		{"a", "/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":60}}`, 201},
		{"b", "/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":60}}`, 402},
		{"b", "/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":160}}`, 402},
		{"", path("a") + "/extend", `{"ttl_seconds":60}`, 200},
		{"", path("a") + "/commit", `{"usage":{"tokens":61}}`, 409},
		{"", path("a") + "/commit", `{"usage":{"other":1}}`, 400},
		{"", path("a") + "/commit", `{"usage":{"tokens":50}}`, 200},
		{"", path("a") + "/commit", `{"usage":{"tokens":50}}`, 200},
		{"", path("a") + "/commit", `{"usage":{"tokens":51}}`, 409},
		{"", path("a") + "/release", `{"reason":"r"}`, 409},
		{"", path("a") + "/extend", `{"ttl_seconds":60}`, 409},
		{"a", "/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":60}}`, 409},
		{"c", "/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":50}}`, 201},
		{"", path("c") + "/release", `{"reason":"r"}`, 200},
		{"", unknown + "/commit", `{"usage":{"tokens":51}}`, 404},
		{"d", "/v1/reservations", `{"scopes":["acme"],"amounts":{"tokens":50}}`, 503},
	} {
		require.Equal(t, test.status, exchange(t, e, test.path, test.key, test.body), "%s %s", test.path, test.body)
	}
	require.Equal(t, 7, e.Count("reserve"))
}

func exchange(t *testing.T, e *Earmark, path, key, body string) int {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../../../api/openapi.yaml")
	require.NoError(t, err)
	doc.Servers = nil
	router, err := legacy.NewRouter(doc)
	require.NoError(t, err)
	request := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	recorder := httptest.NewRecorder()
	e.ServeHTTP(recorder, request)
	route, params, err := router.FindRoute(request)
	require.NoError(t, err)
	require.NoError(t, openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: request, PathParams: params, Route: route},
		Status:                 recorder.Code,
		Header:                 recorder.Header(),
		Body:                   io.NopCloser(recorder.Body),
	}))
	return recorder.Code
}
