package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// maxDocsBytes bounds what a browser loads for the reference.
const maxDocsBytes = 640 << 10

func docsAnswer(t *testing.T, method, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	recorder := httptest.NewRecorder()
	setup(t, &fake{}).handler.ServeHTTP(recorder, newRequest(method, target, "", header...))
	return recorder
}

// The page and everything that it names comes from here, is what it says it is, and
// is small.
func TestDocs(t *testing.T) {
	t.Parallel()
	page := docsAnswer(t, http.MethodGet, "/docs")
	require.Equal(t, http.StatusOK, page.Code)
	references := regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(page.Body.String(), -1)
	require.Len(t, references, 6, "five files and the document")

	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	bytesLoaded := page.Body.Len()
	for _, reference := range references {
		name := reference[1]
		require.NotContains(t, name, ":", "a link to another host, or one that is no file")
		require.False(t, strings.HasPrefix(name, "/"), "%s would leave the path of a proxy", name)
		file := docsAnswer(t, http.MethodGet, path.Join("/", name), "Accept-Encoding", "gzip, deflate, br")
		require.Equal(t, http.StatusOK, file.Code, name)
		require.NotZero(t, file.Body.Len(), name)
		bytesLoaded += file.Body.Len()
		if name == "openapi.yaml" {
			continue
		}
		require.Equal(t, types[path.Ext(name)], file.Header().Get("Content-Type"), name)
		requireDocsHeader(t, path.Join("/", name), file.Header())
	}
	require.Less(t, bytesLoaded, maxDocsBytes)
	require.Equal(t, "text/html; charset=utf-8", page.Header().Get("Content-Type"))
	requireDocsHeader(t, "/docs", page.Header())
}

func requireDocsHeader(t *testing.T, target string, header http.Header) {
	t.Helper()
	policy := header.Get("Content-Security-Policy")
	require.True(t, strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; style-src 'self'; "), target)
	require.NotContains(t, policy, "unsafe", target)
	require.NotContains(t, policy, "http", target)
	require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"), target)
	require.Equal(t, "no-cache", header.Get("Cache-Control"), target)
	require.NotEmpty(t, header.Get("ETag"), target)

	again := docsAnswer(t, http.MethodGet, target, "If-None-Match", header.Get("ETag"), "Accept-Encoding", "gzip")
	require.Equal(t, http.StatusNotModified, again.Code, target)
	require.Zero(t, again.Body.Len(), target)

	head := docsAnswer(t, http.MethodHead, target, "Accept-Encoding", "gzip")
	require.Equal(t, http.StatusOK, head.Code, target)
	require.Equal(t, header.Get("ETag"), head.Header().Get("ETag"), target)
}

// The two forms of a compressed file differ in their tag, and a cache keeps them apart.
func TestDocsCompression(t *testing.T) {
	t.Parallel()
	const target = "/docs/swagger-ui/swagger-ui.css"
	compressed := docsAnswer(t, http.MethodGet, target, "Accept-Encoding", "br, gzip;q=0.5")
	plain := docsAnswer(t, http.MethodGet, target)
	require.Equal(t, "gzip", compressed.Header().Get("Content-Encoding"))
	require.Empty(t, plain.Header().Get("Content-Encoding"))
	require.NotEqual(t, plain.Header().Get("ETag"), compressed.Header().Get("ETag"))
	for _, answer := range []*httptest.ResponseRecorder{compressed, plain} {
		require.Equal(t, "Accept-Encoding", answer.Header().Get("Vary"))
	}
	content, err := gunzip(compressed.Body.Bytes())
	require.NoError(t, err)
	require.Equal(t, plain.Body.String(), string(content))
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

func TestDocsPathsThatAreNone(t *testing.T) {
	t.Parallel()
	b := setup(t, &fake{})
	for _, target := range []string{
		"/docs/index.html", "/docs/openapi.yaml", "/docs/swagger-ui", "/docs/swagger-ui/", "/docs/swagger-ui/SHA256SUMS",
		"/docs/swagger-ui/swagger-ui.css.gz", "/docs/../docs.go", "/docs//docs.css",
	} {
		b.do(http.MethodGet, target, "").problem(http.StatusNotFound, earmark.CodeNotFound)
	}
	b.do(http.MethodPost, "/docs", "{}").problem(http.StatusMethodNotAllowed, earmark.CodeMethodNotAllowed)
	slash := docsAnswer(t, http.MethodGet, "/docs/")
	require.Equal(t, http.StatusPermanentRedirect, slash.Code)
	require.Equal(t, "../docs", slash.Header().Get("Location"))
}

// What is embedded is the release of Swagger UI that package.json names, as its makers
// published it, with the licences that it comes under.
func TestDocsViewerIsThePinnedOne(t *testing.T) {
	t.Parallel()
	manifest, err := os.ReadFile("../tools/docs/package.json")
	require.NoError(t, err)
	var pinned struct {
		Dependencies map[string]string `json:"dependencies"`
	}
	require.NoError(t, json.Unmarshal(manifest, &pinned))
	version := pinned.Dependencies["swagger-ui-dist"]
	require.Regexp(t, `^\d+\.\d+\.\d+$`, version, "exactly one version")

	files, err := docsFiles()
	require.NoError(t, err)
	sums, err := docsFS.ReadFile("docs/swagger-ui/SHA256SUMS")
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(sums)), "\n")
	require.Len(t, lines, 2)
	for _, line := range lines {
		want, name, _ := strings.Cut(line, "  ")
		content, err := gunzip(files["swagger-ui/"+name].content)
		require.NoError(t, err, name)
		sum := sha256.Sum256(content)
		require.Equal(t, want, hex.EncodeToString(sum[:]), "%s was changed; run make docs-assets", name)
		if path.Ext(name) == ".js" {
			require.Contains(t, string(content), `PACKAGE_VERSION:"`+version+`"`, "run make docs-assets")
		}
	}
	require.Contains(t, string(files["swagger-ui/LICENSE.txt"].content), "Apache License")
	require.NotEmpty(t, files["swagger-ui/NOTICE.txt"].content)
	require.NotEmpty(t, files["swagger-ui/swagger-ui-bundle.js.LICENSE.txt"].content)
}
