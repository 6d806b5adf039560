//go:build unix

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

const (
	documentPath       = "../../api/openapi.yaml"
	problemContentType = "application/problem+json"
	// callLimit is above every limit of the product's own.
	callLimit = 40 * time.Second
)

// httpClient keeps as many connections as a busy backend would.
var httpClient = &http.Client{Timeout: callLimit, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// api talks to one server.
type api struct {
	t    *testing.T
	base string
}

// exchange is an answer over HTTP.
type exchange struct {
	code   int
	header http.Header
	body   []byte
	took   time.Duration
	err    error // no answer, or one that openapi.yaml does not know
}

// do sends a request, which has to be answered in accordance with openapi.yaml.
// The header comes as pairs of name and value.
func (a api) do(method, target, body string, header ...string) exchange {
	a.t.Helper()
	x := a.try(method, target, body, header...)
	require.NoError(a.t, x.err)
	return x
}

// try is do for other goroutines than the test's own, and for calls that may fail.
func (a api) try(method, target, body string, header ...string) exchange {
	begun := time.Now()
	request, err := a.request(method, target, body, header...)
	if err != nil {
		return exchange{err: err}
	}
	response, err := httpClient.Do(request)
	if err != nil {
		return exchange{err: err, took: time.Since(begun)}
	}
	x := exchange{code: response.StatusCode, header: response.Header}
	x.body, x.err = io.ReadAll(response.Body)
	_ = response.Body.Close()
	x.took = time.Since(begun)
	if x.err != nil || method == http.MethodHead { // openapi.yaml describes it as a GET
		return x
	}
	again, err := a.request(method, target, body, header...)
	if err != nil {
		return exchange{err: err}
	}
	if x.err = checkExchange(again, x); x.err != nil {
		x.err = fmt.Errorf("%s %s: %d %s: %w", method, target, x.code, x.body, x.err)
	}
	return x
}

// leaveEarly makes a call and hangs up before it can be answered.
func (a api) leaveEarly(target, body, key string) error {
	request, err := a.request(http.MethodPost, target, body, "Idempotency-Key", key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	response, err := httpClient.Do(request.WithContext(ctx))
	if err == nil {
		_ = response.Body.Close()
	}
	return err
}

func (a api) request(method, target, body string, header ...string) (*http.Request, error) {
	request, err := http.NewRequestWithContext(context.Background(), method, a.base+target, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	return request, nil
}

// contract finds calls in openapi.yaml. Its schemas are closed here, so that an
// answer with a field that is not described fails; the published document stays
// open, for clients should bear new fields.
var contract = sync.OnceValues(func() (routers.Router, error) {
	doc, err := openapi3.NewLoader().LoadFromFile(documentPath)
	if err != nil {
		return nil, err
	}
	doc.Servers = nil // the tests' servers are elsewhere
	closed := false
	for _, ref := range doc.Components.Schemas {
		if schema := ref.Value; schema.Type.Is("object") && schema.AdditionalProperties.Schema == nil {
			schema.AdditionalProperties.Has = &closed
		}
	}
	return legacy.NewRouter(doc)
})

// blamed are the statuses that a malformed request may have; others say that it
// was in order.
var blamed = []int{http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType}

func checkExchange(request *http.Request, x exchange) error {
	router, err := contract()
	if err != nil {
		return err
	}
	route, params, err := router.FindRoute(request)
	if err != nil { // no such call
		if (x.code != http.StatusNotFound && x.code != http.StatusMethodNotAllowed) || x.header.Get("Content-Type") != problemContentType {
			return fmt.Errorf("not a problem that says so: %w", err)
		}
		return nil
	}
	ctx := context.Background()
	options := &openapi3filter.Options{IncludeResponseStatus: true, SkipSettingDefaults: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}
	input := &openapi3filter.RequestValidationInput{Request: request, PathParams: params, Route: route, Options: options}
	if !slices.Contains(blamed, x.code) {
		if err := openapi3filter.ValidateRequest(ctx, input); err != nil {
			return fmt.Errorf("the request is answered as if it were in order: %w", err)
		}
	}
	return openapi3filter.ValidateResponse(ctx, &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: x.code, Header: x.header, Body: io.NopCloser(bytes.NewReader(x.body)), Options: options,
	})
}

// status checks the status and gives the exchange back.
func (x exchange) status(t *testing.T, want int) exchange {
	t.Helper()
	require.NoError(t, x.err)
	require.Equal(t, want, x.code, "%s", x.body)
	return x
}

// problem is an error as the API writes it.
type problem struct {
	Code          earmark.Code         `json:"code"`
	Status        int                  `json:"status"`
	Detail        string               `json:"detail"`
	Field         string               `json:"field"`
	Violations    []earmark.Violation  `json:"violations"`
	Retryable     *bool                `json:"retryable"`
	RetryAt       *time.Time           `json:"retry_at"`
	Reservation   *earmark.Reservation `json:"reservation"`
	ReservationID string               `json:"reservation_id"`
	Checks        map[string]struct{ Status, Detail string }
}

// problem checks that the answer is a problem with this status and code.
func (x exchange) problem(t *testing.T, status int, code earmark.Code) problem {
	t.Helper()
	x.status(t, status)
	require.Equal(t, problemContentType, x.header.Get("Content-Type"))
	p := decoded[problem](t, x)
	require.Equal(t, code, p.Code, "%s", x.body)
	require.Equal(t, status, p.Status)
	require.NotEmpty(t, p.Detail)
	return p
}

func decoded[T any](t *testing.T, x exchange) T {
	t.Helper()
	return decodeJSON[T](t, x.body)
}

func decodeJSON[T any](t *testing.T, document []byte) (value T) {
	t.Helper()
	require.NoError(t, json.Unmarshal(document, &value), "%s", document)
	return value
}

// mustJSON is one member of an answer, as it was written.
func mustJSON(t *testing.T, x exchange, member string) json.RawMessage {
	t.Helper()
	value, found := decoded[map[string]json.RawMessage](t, x)[member]
	require.True(t, found, "%s", x.body)
	return value
}
