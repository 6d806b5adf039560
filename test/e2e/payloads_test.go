//go:build unix

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/stack"
)

// payloadKeys makes a file of keys with what the command line prints.
func payloadKeys(t *testing.T, s *stack.Stack) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "payload.keys")
	require.NoError(t, os.WriteFile(path, []byte(s.MustRun("payload-key")), 0o600))
	return path
}

// leftInTemporal is all that Temporal tells about the workflow of a reservation to a client without keys.
func (b *env) leftInTemporal(id string) string {
	b.t.Helper()
	described, err := b.Client().DescribeWorkflowExecution(b.t.Context(), "reservation-"+id, "")
	require.NoError(b.t, err)
	text := ""
	for _, message := range []proto.Message{described, &historypb.History{Events: b.history(id)}} {
		bytes, err := proto.Marshal(message)
		require.NoError(b.t, err)
		text += string(bytes)
	}
	return text
}

// With keys nothing of a request or of a settlement can be read in Temporal. Workflows that began before go on, and a commit
// that only Temporal takes is charged.
func TestPayloadsAreEncrypted(t *testing.T) {
	t.Parallel()
	b := setup(t, stack.Options{OwnPostgres: true}, "--without-search-attributes")
	budget := b.budget("acme", "tokens", 1000)
	const planted = "planted"
	body := func(n int64) string {
		return fmt.Sprintf(`{"scopes":["acme/planted-scope"],"amounts":{"tokens":%d},"ttl_seconds":120,"metadata":{"note":"planted-metadata"}}`, n)
	}
	before := b.hold("before", body(100))
	b.awaitGuarded(before.ID)
	require.Contains(t, b.leftInTemporal(before.ID), planted, "the sign that the search would find it")
	b.server.Kill()

	server := b.Serve("--without-search-attributes", "--payload-keys", payloadKeys(t, b.Stack)).Ready()
	b.server, b.base = server, server.URL
	b.commit(before.ID, 40).status(t, http.StatusOK)
	b.awaitClosed(before.ID, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)

	released, committed, away := b.hold("released", body(100)).ID, b.hold("committed", body(100)).ID, b.hold("away", body(100)).ID
	b.do("POST", "/v1/reservations/"+released+"/release", `{"reason":"planted-reason"}`).status(t, http.StatusOK)
	b.commit(committed, 130).status(t, http.StatusOK)
	b.awaitGuarded(away)
	b.Postgres.Stop()
	stack.Eventually(t, moment, "Temporal to take the commit", func() bool { return b.commit(away, 50).code == http.StatusAccepted })
	b.Postgres.Start()
	b.awaitState(away, earmark.StateCommitted, 2*moment)
	b.requireBalance(budget, 0, 40+130+50)

	for _, id := range []string{released, committed, away} {
		b.awaitClosed(id, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
		history := b.history(id)
		require.NotContains(t, b.leftInTemporal(id), planted)
		for _, payload := range history[0].GetWorkflowExecutionStartedEventAttributes().GetInput().GetPayloads() {
			require.Equal(t, "binary/encrypted", string(payload.GetMetadata()["encoding"]))
		}
		// Temporal UI shows it by the codec endpoint.
		encoded := must(protojson.Marshal(&commonpb.Payloads{Payloads: history[0].GetWorkflowExecutionStartedEventAttributes().GetInput().GetPayloads()}))
		decoded := b.do("POST", "/temporal/codec/decode", string(encoded)).status(t, http.StatusOK)
		var plain commonpb.Payloads
		require.NoError(t, protojson.Unmarshal(decoded.body, &plain))
		require.Contains(t, string(plain.GetPayloads()[0].GetData()), "planted-metadata")
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
