package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func pageAnswer(t *testing.T, method, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	recorder := httptest.NewRecorder()
	setup(t, &fake{}).handler.ServeHTTP(recorder, newRequest(method, target, "", header...))
	return recorder
}

// plain is the body of an answer that is compressed.
func plain(t *testing.T, answer *httptest.ResponseRecorder) string {
	t.Helper()
	content, err := gunzip(answer.Body.Bytes())
	require.NoError(t, err)
	return string(content)
}

// requirePageHeader checks what every file of a page comes with; header is that of its
// compressed form.
func requirePageHeader(t *testing.T, target string, header http.Header) {
	t.Helper()
	policy := header.Get("Content-Security-Policy")
	require.True(t, strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; style-src 'self'; "), target)
	for _, laxity := range []string{"unsafe", "http", "*"} {
		require.NotContains(t, policy, laxity, target)
	}
	require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"), target)
	require.Equal(t, "no-referrer", header.Get("Referrer-Policy"), target)
	require.Equal(t, "no-cache", header.Get("Cache-Control"), target)
	require.NotEmpty(t, header.Get("ETag"), target)

	again := pageAnswer(t, http.MethodGet, target, "If-None-Match", header.Get("ETag"), "Accept-Encoding", "gzip")
	require.Equal(t, http.StatusNotModified, again.Code, target)
	require.Zero(t, again.Body.Len(), target)

	head := pageAnswer(t, http.MethodHead, target, "Accept-Encoding", "gzip")
	require.Equal(t, http.StatusOK, head.Code, target)
	require.Equal(t, header.Get("ETag"), head.Header().Get("ETag"), target)
}

// The two forms of a compressed file differ in their tag, and a cache keeps them apart.
func TestPageCompression(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/", "/docs/swagger-ui/swagger-ui.css"} {
		compressed := pageAnswer(t, http.MethodGet, target, "Accept-Encoding", "br, gzip;q=0.5")
		whole := pageAnswer(t, http.MethodGet, target)
		require.Equal(t, "gzip", compressed.Header().Get("Content-Encoding"))
		require.Empty(t, whole.Header().Get("Content-Encoding"))
		require.NotEqual(t, whole.Header().Get("ETag"), compressed.Header().Get("ETag"))
		require.Less(t, compressed.Body.Len(), whole.Body.Len())
		for _, answer := range []*httptest.ResponseRecorder{compressed, whole} {
			require.Equal(t, "Accept-Encoding", answer.Header().Get("Vary"))
		}
		require.Equal(t, whole.Body.String(), plain(t, compressed))
	}
}

func TestAcceptsGzip(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]bool{
		"": false, "identity": false, "br": false, "x-gzip": false, "gzip;q=0": false, "gzip; q=0.000, br": false,
		"gzip": true, "br, GZIP": true, "deflate,gzip;q=1.0": true, "gzip; q=0.001": true,
	} {
		require.Equal(t, want, acceptsGzip(header), "%q", header)
	}
}
