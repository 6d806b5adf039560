package api

import (
	"net/http"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// maxStatusBytes bounds what a browser loads for the status page.
const maxStatusBytes = 24 << 10

// statusReferences are what the page and its modules load, by path.
func statusReferences(t *testing.T, page string) []string {
	t.Helper()
	var targets []string
	for _, reference := range regexp.MustCompile(`(?:href|src)="([^"#]+)"`).FindAllStringSubmatch(page, -1) {
		require.NotContains(t, reference[1], ":", "a link to another host, or one that is no file")
		require.False(t, strings.HasPrefix(reference[1], "/"), "%s would leave the path of a proxy", reference[1])
		if name := path.Join("/", reference[1]); name != "/docs" && name != "/sign-in" {
			targets = append(targets, name)
		}
	}
	return targets
}

// The page and everything that it names comes from here, is what it says it is, and
// is small. A module that no other imports is of no use.
func TestStatusPage(t *testing.T) {
	t.Parallel()
	page := pageAnswer(t, http.MethodGet, "/", "Accept-Encoding", "gzip")
	require.Equal(t, http.StatusOK, page.Code)
	require.Equal(t, "text/html; charset=utf-8", page.Header().Get("Content-Type"))
	require.NotContains(t, page.Header().Get("Content-Security-Policy"), "data:")
	requirePageHeader(t, "/", page.Header())

	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	imports := regexp.MustCompile(`from "(\./[a-z]+\.js)";`)
	loaded, bytesLoaded := map[string]bool{"/": true}, page.Body.Len()
	for targets := statusReferences(t, plain(t, page)); len(targets) > 0; targets = targets[1:] {
		target := targets[0]
		if loaded[target] {
			continue
		}
		file := pageAnswer(t, http.MethodGet, target, "Accept-Encoding", "gzip")
		require.Equal(t, http.StatusOK, file.Code, target)
		require.Equal(t, types[path.Ext(target)], file.Header().Get("Content-Type"), target)
		requirePageHeader(t, target, file.Header())
		loaded[target], bytesLoaded = true, bytesLoaded+file.Body.Len()
		for _, module := range imports.FindAllStringSubmatch(plain(t, file), -1) {
			targets = append(targets, path.Join(path.Dir(target), module[1]))
		}
	}
	require.Less(t, bytesLoaded, maxStatusBytes)
	files, err := statusFiles()
	require.NoError(t, err)
	for name := range files {
		require.True(t, name == pageIndex || loaded["/status/"+name], "nothing loads %s", name)
	}
}

// Scopes, reasons and metadata come from callers: they go into the page as text, and
// nothing in it takes HTML or runs words.
func TestStatusPageTakesTextAlone(t *testing.T) {
	t.Parallel()
	files, err := statusFiles()
	require.NoError(t, err)
	for name, file := range files {
		content, err := gunzip(file.content)
		require.NoError(t, err)
		for _, way := range []string{
			"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "setHTML", "eval(", "Function(", "DOMParser", "srcdoc",
			" style=", " onclick=", " onload=", "<style", "javascript:",
		} {
			require.NotContains(t, string(content), way, name)
		}
	}
}

func TestStatusPathsThatAreNone(t *testing.T) {
	t.Parallel()
	b := setup(t, &fake{})
	for _, target := range []string{
		"/index.html", "/status", "/status/", "/status/index.html", "/status/status.ts", "/status/../status.go", "/status//status.js", "/favicon.ico",
	} {
		b.do(http.MethodGet, target, "").problem(http.StatusNotFound, earmark.CodeNotFound)
	}
	b.do(http.MethodPost, "/", "{}").problem(http.StatusMethodNotAllowed, earmark.CodeMethodNotAllowed)
}
