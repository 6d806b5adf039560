//go:build unix

package examples_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/internal/fakeprovider"
	"github.com/earmark-dev/earmark/internal/stack"
)

// The examples of guarded calls are short, and each charges what the provider bills.
func TestGuardedExamples(t *testing.T) {
	t.Parallel()
	s, server, key := setup(t)
	root, err := stack.ModuleRoot()
	require.NoError(t, err)
	for _, file := range []string{"examples/transport/main.go", "examples/gateway/chat.sh"} {
		content, err := os.ReadFile(filepath.Join(root, file))
		require.NoError(t, err)
		require.Less(t, bytes.Count(content, []byte("\n")), 40, file)
	}
	earmarks, err := client.New(server.URL, client.WithAPIKey(key))
	require.NoError(t, err)
	limit := int64(1000)
	_, err = earmarks.CreateBudget(t.Context(), earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: &limit})
	require.NoError(t, err)
	provider, stop := (&fakeprovider.Provider{}).Serve()
	t.Cleanup(stop)
	billed := earmark.Amounts{"tokens": fakeprovider.Input + fakeprovider.Output}
	ports := stack.FreePorts(t, 2)

	gateway := "127.0.0.1:" + strconv.Itoa(ports[0])
	proxy := s.Process("gateway", "--upstream", provider, "--url", server.URL, "--listen", gateway, "--on-expiry", "commit")
	proxy.Start()
	proxy.AwaitLog("The gateway listens.")
	s.Setenv("GATEWAY_URL", "http://"+gateway)
	require.Contains(t, run(t, s, server, root, "sh", "examples/gateway/chat.sh"), "data: [DONE]")
	requireCommitted(t, server, key, billed)

	binary := filepath.Join(t.TempDir(), "transport")
	run(t, s, server, root, "go", "build", "-o", binary, "./examples/transport")
	address := "127.0.0.1:" + strconv.Itoa(ports[1])
	handler := stack.NewProcess(t, "transport", append(s.Env(), "EARMARK_URL="+server.URL, "OPENAI_BASE_URL="+provider+"/v1", "ADDR="+address), binary)
	handler.Start()
	ask := func(body string) (status int, answer string) {
		stack.Eventually(t, 15*time.Second, "the handler", func() bool {
			response, err := http.Post("http://"+address+"/chat", "application/json", strings.NewReader(body))
			if err != nil {
				return false
			}
			defer func() { _ = response.Body.Close() }()
			read, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			status, answer = response.StatusCode, string(read)
			return true
		})
		return status, answer
	}
	status, answer := ask(`{"model":"gpt-5","max_tokens":100}`)
	require.Equal(t, http.StatusOK, status, answer)
	require.Contains(t, answer, fakeprovider.Text)
	requireCommitted(t, server, key, billed)
	status, answer = ask(`{"model":"gpt-5","max_tokens":100000}`)
	require.Equal(t, http.StatusPaymentRequired, status, answer)
}
