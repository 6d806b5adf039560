//go:build unix

package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/fakeprovider"
	"github.com/earmark-dev/earmark/internal/stack"
)

// The gateway charges a call to its caller's key, keeps the provider's key, and lets a stream
// end before it stops.
func TestGateway(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{Keys: true})
	server := s.Serve().Ready()
	admin := strings.TrimSpace(s.MustRun("key", "create", "--role", "admin", "--reason", "test"))
	earmarks, err := client.New(server.URL, client.WithAPIKey(admin))
	require.NoError(t, err)
	limit := int64(1000)
	budget, err := earmarks.CreateBudget(t.Context(), earmark.BudgetRequest{Scope: "acme/ml", Unit: "tokens", Limit: &limit})
	require.NoError(t, err)
	key := strings.TrimSpace(s.MustRun("key", "create", "--role", "reserve", "--scope", "acme/ml", "--reason", "test"))

	gate := make(chan struct{}, 100)
	provider := &fakeprovider.Provider{Behave: func(call fakeprovider.Call) fakeprovider.Behaviour {
		if strings.Contains(call.Body, `"slow"`) {
			return fakeprovider.Behaviour{Gate: gate}
		}
		return fakeprovider.Behaviour{}
	}}
	upstream, stop := provider.Serve()
	t.Cleanup(stop)
	secret := filepath.Join(t.TempDir(), "provider.key")
	require.NoError(t, os.WriteFile(secret, []byte("sk-secret\n"), 0o600))
	port := strconv.Itoa(stack.FreePorts(t, 1)[0])
	gateway := s.Process("gateway", "--upstream", upstream, "--url", server.URL, "--listen", "127.0.0.1:"+port, "--provider-key-file", secret, "--on-expiry", "commit", "--require-budget")
	gateway.Start()
	gateway.AwaitLog("The gateway listens.")
	call := func(body string, scopes ...string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:"+port+"/v1/chat/completions", strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+key)
		for _, scope := range scopes {
			r.Header.Set("Earmark-Scope", scope)
		}
		return http.DefaultClient.Do(r)
	}
	read := func(response *http.Response, err error) (int, string) {
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response.StatusCode, string(body)
	}
	balance := func() earmark.Balance {
		after, err := earmarks.Budget(t.Context(), budget.ID)
		require.NoError(t, err)
		return after.Balance
	}

	status, body := read(call(`{"model":"gpt-5","max_tokens":50}`))
	require.Equal(t, http.StatusOK, status, body)
	require.EqualValues(t, 18, balance().Committed)
	require.Equal(t, "Bearer sk-secret", provider.Calls()[0].Header.Get("Authorization"))

	status, body = read(call(`{"model":"gpt-5","max_tokens":50000}`))
	require.Equal(t, http.StatusPaymentRequired, status, body)
	require.NotNil(t, client.DenialOf(fmt.Errorf("%s", body)))

	status, body = read(call(`{"model":"gpt-5","max_tokens":50}`, "acme/ml/u1"))
	require.Equal(t, http.StatusBadRequest, status, body)
	require.Contains(t, body, "has no budget of its own")

	// A stream that is under way when the gateway stops.
	gate <- struct{}{}
	response, err := call(`{"model":"slow","max_tokens":50,"stream":true}`)
	require.NoError(t, err)
	_, err = io.ReadFull(response.Body, make([]byte, 20))
	require.NoError(t, err)
	stopped := make(chan struct{})
	go func() { gateway.Stop(); close(stopped) }()
	stack.Eventually(t, moment, "the port to close", func() bool {
		again, err := call(`{"model":"gpt-5","max_tokens":50}`)
		if err == nil {
			_ = again.Body.Close()
		}
		return err != nil
	})
	before := balance().Committed
	for range cap(gate) {
		gate <- struct{}{}
	}
	_, rest := read(response, nil)
	require.True(t, strings.HasSuffix(rest, "data: [DONE]\n\n"), rest)
	<-stopped
	require.Equal(t, before+18, balance().Committed)
	require.Zero(t, balance().Reserved)
	require.NotContains(t, gateway.Log(), key)
	require.NotContains(t, gateway.Log(), "sk-secret")
}
