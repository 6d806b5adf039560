package api

import (
	"embed"
	"fmt"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// The status page shows people what the API tells programs: it reads budgets,
// stuck reservations and the overview, and changes nothing. Its files are served as
// they are written; there is no build step.
//
//go:embed status
var statusFS embed.FS

// statusPolicy lets the page load its own files and call its own server, and
// nothing else. Scopes, reasons and metadata come from callers.
const statusPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// statusFiles are the files of the status page by their path below status/.
var statusFiles = sync.OnceValues(func() (map[string]pageFile, error) {
	return pageFiles(statusFS, "status", statusPolicy)
})

// status serves the status page, at /, and what it is made of, below /status/.
func status(c *gin.Context) error {
	name := strings.TrimPrefix(c.Param("file"), "/")
	switch {
	case c.FullPath() == "/":
		name = pageIndex
	case name == pageIndex: // its links lead nowhere from here
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
