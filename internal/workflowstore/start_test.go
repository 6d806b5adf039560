package workflowstore_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/payloads"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
)

// What Temporal accepts of a workflow's start. It refuses the start for ever beyond that.
const (
	maxAttributeBytes = 2_048  // of one search attribute, as JSON
	maxSummaryBytes   = 400    // of the summary's payload
	maxDetailsBytes   = 20_000 // of the details' payload
)

// longest is a request that is as long as validation allows: in its scopes, units and metadata. fill is what
// metadata consists of.
func longest(fill string) earmark.Admission {
	request := earmark.ReservationRequest{Amounts: earmark.Amounts{}, Metadata: earmark.Metadata{}, TTLSeconds: int64(earmark.MaxTTL / time.Second), OnExpiry: earmark.OnExpiryRelease}
	for n := range earmark.MaxScopes {
		var segments []string // one of 38 characters, and seven of 30 with their slashes, are 255
		for depth := range earmark.MaxScopeDepth {
			segments = append(segments, fmt.Sprintf("%d%d", n, depth)+strings.Repeat("x", 28))
		}
		request.Scopes = append(request.Scopes, strings.Repeat("y", 8)+strings.Join(segments, "/"))
	}
	for n := range earmark.MaxUnits {
		request.Amounts[fmt.Sprintf("u%031d", n)] = math.MaxInt64
	}
	for n := range earmark.MaxMetadataKeys {
		key := fmt.Sprint(n) + strings.Repeat(fill, earmark.MaxMetadataBytes/len(fill)-2)
		request.Metadata[key] = strings.Repeat(fill, earmark.MaxMetadataBytes/len(fill))
	}
	id := earmark.ReservationID(earmark.DefaultTenant, "k")
	return earmark.Admission{ID: id, Tenant: earmark.DefaultTenant, Request: request.WithDefaults(), RequestHash: request.Hash(), WorkflowID: workflows.Prefix("").ReservationWorkflowID(id)}
}

// Temporal refuses to start a workflow whose attributes, summary or details are too long, and the caller's retry
// would be refused too. So the longest valid request stays below each limit, whatever its metadata holds.
func TestLongestRequestIsWithinTemporalsLimits(t *testing.T) {
	t.Parallel()
	for _, fill := range []string{"x", "<", "|", "\\", "\"", "\u2028", "é"} {
		t.Run(fmt.Sprintf("%q", fill), func(t *testing.T) {
			t.Parallel()
			admission := longest(fill)
			require.NoError(t, admission.Validate())
			for _, scope := range admission.Request.Scopes {
				require.Len(t, scope, earmark.MaxScopeBytes)
			}
			options := workflowstore.StartOptions(admission, time.Now(), "", false)
			scopes, _ := options.TypedSearchAttributes.GetKeywordList(workflows.AttributeScope)
			tenant, _ := options.TypedSearchAttributes.GetKeyword(workflows.AttributeTenant)
			require.Less(t, payloadBytes(t, scopes), maxAttributeBytes)
			require.Less(t, payloadBytes(t, tenant), maxAttributeBytes)
			require.Less(t, encryptedBytes(t, options.StaticSummary), maxSummaryBytes)
			require.Less(t, encryptedBytes(t, options.StaticDetails), maxDetailsBytes)
		})
	}
}

// payloadBytes is the size that Temporal counts: of the payload and what describes its encoding.
func payloadBytes(t *testing.T, value any) int {
	t.Helper()
	payload, err := converter.GetDefaultDataConverter().ToPayload(value)
	require.NoError(t, err)
	return payload.Size()
}

// encryptedBytes is payloadBytes with the longest id of a key.
func encryptedBytes(t *testing.T, value any) int {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys")
	_, key, _ := strings.Cut(payloads.NewKey(), " ")
	require.NoError(t, os.WriteFile(file, []byte("k234567890123456 "+key), 0o600))
	keys, err := payloads.ReadKeys(file)
	require.NoError(t, err)
	payload, err := converter.NewCodecDataConverter(converter.GetDefaultDataConverter(), keys).ToPayload(value)
	require.NoError(t, err)
	return payload.Size()
}

// Most requests are indexed whole. Of a longer list the shortest scopes stay, which are the parents of all others.
// Temporal lets tenants take turns by the key of a start, which it refuses beyond 64 bytes. Without search attributes the start
// does not name the tenant.
func TestStartNamesTheTenantForFairness(t *testing.T) {
	t.Parallel()
	const maxFairnessKeyBytes = 64
	admission := longest("x")
	admission.Tenant = strings.Repeat("t", earmark.MaxTenantBytes)
	require.Equal(t, admission.Tenant, workflowstore.StartOptions(admission, time.Now(), "", false).Priority.FairnessKey)
	require.LessOrEqual(t, len(admission.Tenant), maxFairnessKeyBytes)
	require.Empty(t, workflowstore.StartOptions(admission, time.Now(), "", true).Priority.FairnessKey)
}

func TestScopesAreIndexedShortestFirst(t *testing.T) {
	t.Parallel()
	indexed := func(admission earmark.Admission) []string {
		scopes, _ := workflowstore.StartOptions(admission, time.Now(), "", false).TypedSearchAttributes.GetKeywordList(workflows.AttributeScope)
		return scopes
	}
	few := longest("x")
	few.Request.Scopes = []string{"acme/ml/u1", "models", "acme/ml"}
	require.Equal(t, []string{"acme", "models", "acme/ml", "acme/ml/u1"}, indexed(few))

	most := longest("x")
	for _, scope := range most.Request.Scopes {
		paths := earmark.ScopePaths(scope)
		require.Subset(t, indexed(most), paths[:3])
		require.NotContains(t, indexed(most), scope)
	}
	require.True(t, slices.IsSortedFunc(indexed(most), func(a, b string) int { return len(a) - len(b) }))
	require.Greater(t, payloadBytes(t, indexed(most)), 1_700, "more of them would fit")
}
