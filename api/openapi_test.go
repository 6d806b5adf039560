package api

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func loadDocument(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openapiYAML)
	require.NoError(t, err)
	return doc
}

func TestDocumentIsValid(t *testing.T) {
	t.Parallel()
	doc := loadDocument(t)
	require.NoError(t, doc.Validate(context.Background()))
	require.Equal(t, "Earmark", doc.Info.Title)
}

func TestDocumentHasExactlyTheRoutes(t *testing.T) {
	t.Parallel()
	var documented, served []string
	for path, item := range loadDocument(t).Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	parameter := regexp.MustCompile(`:(\w+)`)
	engine := New(Options{WithoutKeys: true, Ledger: &fake{}, Coordinator: fakeCoordinator{&fake{}}}).(*gin.Engine)
	for _, route := range engine.Routes() {
		if slices.Contains([]string{"/", "/sign-in", "/sign-out", "/status/*file", "/docs", "/docs/*file"}, route.Path) {
			continue // pages for people, and no calls
		}
		if route.Method != http.MethodHead { // every GET answers it
			served = append(served, route.Method+" "+parameter.ReplaceAllString(route.Path, "{$1}"))
		}
	}
	slices.Sort(documented)
	slices.Sort(served)
	require.Equal(t, served, documented)
}

func TestDocumentHasExactlyTheCodes(t *testing.T) {
	t.Parallel()
	var documented, known []string
	for _, code := range loadDocument(t).Components.Schemas["Problem"].Value.Properties["code"].Value.Enum {
		documented = append(documented, code.(string))
	}
	for code := range problems {
		known = append(known, string(code))
	}
	require.ElementsMatch(t, known, documented)
}

// Every operation documents the answers that any call can have, and every request
// body refuses what it does not describe, as the decoder does.
func TestDocumentIsComplete(t *testing.T) {
	t.Parallel()
	doc := loadDocument(t)
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			name := method + " " + path
			require.NotEmpty(t, operation.Summary, name)
			require.NotEmpty(t, operation.OperationID, name)
			if len(path) < 4 || path[:4] != "/v1/" {
				continue
			}
			for _, status := range []int{400, 500, 503} {
				require.NotNil(t, operation.Responses.Status(status), "%s %d", name, status)
			}
			if !strings.HasPrefix(path, "/v1/reservations/{id}/") || strings.HasSuffix(path, "/adopt") {
				require.NotNil(t, operation.Responses.Status(http.StatusTooManyRequests), name) // commit, release and extend are never refused so
			}
			if operation.RequestBody == nil {
				continue
			}
			for _, status := range []int{413, 415} {
				require.NotNil(t, operation.Responses.Status(status), "%s %d", name, status)
			}
			schema := operation.RequestBody.Value.Content["application/json"].Schema.Value
			require.NotNil(t, schema.AdditionalProperties.Has, name)
			require.False(t, *schema.AdditionalProperties.Has, name)
		}
	}
}

func TestDocumentLimitsAreTheCodes(t *testing.T) {
	t.Parallel()
	schemas := loadDocument(t).Components.Schemas
	require.EqualValues(t, earmark.MaxScopes, *schemas["Scopes"].Value.MaxItems)
	require.EqualValues(t, earmark.MaxScopeBytes, *schemas["Scope"].Value.MaxLength)
	require.EqualValues(t, earmark.MaxUnits, *schemas["Usage"].Value.MaxProps)
	require.EqualValues(t, earmark.MaxUnits, *schemas["RequestedAmounts"].Value.MaxProps)
	require.EqualValues(t, earmark.MaxMetadataKeys, *schemas["Metadata"].Value.MaxProps)
	require.EqualValues(t, earmark.MaxIdempotencyKey, *schemas["IdempotencyKey"].Value.MaxLength)
	require.EqualValues(t, earmark.DefaultTTL.Seconds(), schemas["ReservationRequest"].Value.Properties["ttl_seconds"].Value.Default)
	for _, name := range []string{"ReservationRequest", "ExtendRequest"} {
		ttl := schemas[name].Value.Properties["ttl_seconds"].Value
		require.Equal(t, earmark.MinTTL.Seconds(), *ttl.Min, name)
		require.Equal(t, earmark.MaxTTL.Seconds(), *ttl.Max, name)
	}
	limit := loadDocument(t).Components.Parameters["Limit"].Value.Schema.Value
	require.EqualValues(t, earmark.MaxPageSize, *limit.Max)
	require.EqualValues(t, earmark.DefaultPageSize, limit.Default)
}
