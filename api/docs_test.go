package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
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

// The page and everything that it names comes from here, is what it says it is, and
// is small.
func TestDocs(t *testing.T) {
	t.Parallel()
	page := pageAnswer(t, http.MethodGet, "/docs", "Accept-Encoding", "gzip")
	require.Equal(t, http.StatusOK, page.Code)
	references := regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(plain(t, page), -1)
	require.Len(t, references, 7, "five files, the document and the status page")

	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	bytesLoaded := page.Body.Len()
	for _, reference := range references {
		name := reference[1]
		if name == "." { // the status page, which has a test of its own
			continue
		}
		require.NotContains(t, name, ":", "a link to another host, or one that is no file")
		require.False(t, strings.HasPrefix(name, "/"), "%s would leave the path of a proxy", name)
		file := pageAnswer(t, http.MethodGet, path.Join("/", name), "Accept-Encoding", "gzip, deflate, br")
		require.Equal(t, http.StatusOK, file.Code, name)
		require.NotZero(t, file.Body.Len(), name)
		bytesLoaded += file.Body.Len()
		if name == "openapi.yaml" {
			continue
		}
		require.Equal(t, types[path.Ext(name)], file.Header().Get("Content-Type"), name)
		requirePageHeader(t, path.Join("/", name), file.Header())
	}
	require.Less(t, bytesLoaded, maxDocsBytes)
	require.Equal(t, "text/html; charset=utf-8", page.Header().Get("Content-Type"))
	requirePageHeader(t, "/docs", page.Header())
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
	slash := pageAnswer(t, http.MethodGet, "/docs/")
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
	require.Contains(t, pageAnswer(t, http.MethodGet, "/docs/swagger-ui/LICENSE.txt").Body.String(), "Apache License")
	require.NotZero(t, pageAnswer(t, http.MethodGet, "/docs/swagger-ui/NOTICE.txt").Body.Len())
	require.NotZero(t, pageAnswer(t, http.MethodGet, "/docs/swagger-ui/swagger-ui-bundle.js.LICENSE.txt").Body.Len())
}
