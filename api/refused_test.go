package api

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What is no HTTP is answered by net/http before any handler, as text. The document says so, with
// every status, since no handler can change that.
func TestRefusedByTheHTTPServer(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(setup(t, &fake{}).handler)
	server.Config = Server("", server.Config.Handler, slog.Default())
	server.Start()
	t.Cleanup(server.Close)
	paragraph := documentParagraph(t, "is not proper HTTP")
	const host = "Host: 127.0.0.1\r\n"
	for name, request := range map[string]struct {
		raw    string
		status int
	}{
		"no HTTP":                {"hello\r\n\r\n", 400},
		"no host":                {"GET /healthz HTTP/1.1\r\n\r\n", 400},
		"two hosts":              {"GET /healthz HTTP/1.1\r\n" + host + host + "\r\n", 400},
		"bad header":             {"GET /healthz HTTP/1.1\r\n" + host + "Bad Name: x\r\n\r\n", 400},
		"bad length":             {"POST /v1/usage HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n", 400},
		"unknown encoding":       {"POST /v1/usage HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n\r\n", 501},
		"unknown version":        {"GET /healthz HTTP/3.7\r\n" + host + "\r\n", 505},
		"large header":           {"GET /healthz HTTP/1.1\r\n" + host + "X: " + strings.Repeat("x", 2*maxHeaderBytes) + "\r\n\r\n", 431},
		"unknown expectation":    {"GET /healthz HTTP/1.1\r\n" + host + "Expect: miracles\r\n\r\n", 417},
		"path that is no path":   {"GET healthz HTTP/1.1\r\n" + host + "\r\n", 400},
		"control code in header": {"GET /healthz HTTP/1.1\r\n" + host + "X: a\x01b\r\n\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
			_, err = io.WriteString(conn, request.raw)
			require.NoError(t, err)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, request.status, response.StatusCode)
			require.Contains(t, []string{"", "text/plain; charset=utf-8"}, response.Header.Get("Content-Type"))
			require.True(t, response.Close, "the connection closes")
			require.Regexp(t, fmt.Sprintf(`\b%d \(`, request.status), paragraph, "the document names the status")
		})
	}
}

// documentParagraph returns the paragraph of the document's introduction that holds text.
func documentParagraph(t *testing.T, text string) string {
	t.Helper()
	for paragraph := range strings.SplitSeq(string(openapiYAML), "\n\n") {
		if strings.Contains(paragraph, text) {
			return paragraph
		}
	}
	require.Fail(t, "the document has no such paragraph", text)
	return ""
}
