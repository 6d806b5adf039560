package api

import (
	"embed"
	"fmt"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// The status page shows what the API reports: it reads budgets, stuck reservations and the
// overview, and changes nothing. Its files are served as they are in the repository; there
// is no build step.
//
//go:embed status
var statusFS embed.FS

// statusPolicy lets the page load only its own files and call only its own server, because
// scopes, reasons and metadata come from callers.
const statusPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// statusFiles returns the files of the status page by path below status/.
var statusFiles = sync.OnceValues(func() (map[string]pageFile, error) {
	return pageFiles(statusFS, "status", statusPolicy)
})

// status serves the status page at /, and its files below /status/.
func status(c *gin.Context) error {
	name := strings.TrimPrefix(c.Param("file"), "/")
	switch {
	case c.FullPath() == "/":
		name = pageIndex
	case name == pageIndex: // its relative links do not work from this path
		name = ""
	}
	files, err := statusFiles()
	if err != nil {
		return fmt.Errorf("the files of the status page: %w", err)
	}
	file, ok := files[name]
	if !ok {
		return earmark.Errorf(earmark.CodeNotFound, "there is nothing at this path; the status page is at /")
	}
	return file.serve(c)
}
