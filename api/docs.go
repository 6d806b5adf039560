package api

import (
	"embed"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// The API reference is openapi.yaml in Swagger UI, which tools/docs/build.sh copies from
// its package. Its files are embedded in the program: the page loads nothing from
// elsewhere, and works without the Internet.
//
//go:embed docs
var docsFS embed.FS

// docsPolicy lets the page load only its own files and call only its own server. Swagger
// UI's stylesheet contains its images.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// docsFiles returns the files of the reference by path below docs/.
var docsFiles = sync.OnceValues(func() (map[string]pageFile, error) {
	return pageFiles(docsFS, "docs", docsPolicy)
})

// docs serves the API reference and its files.
func docs(c *gin.Context) error {
	name := strings.TrimPrefix(c.Param("file"), "/")
	switch {
	case c.Param("file") == "":
		name = pageIndex
	case name == "": // The page's links are relative, so that it works behind a proxy under any path.
		c.Header("Location", "../docs")
		c.Status(http.StatusPermanentRedirect)
		return nil
	case name == pageIndex: // its relative links do not work from this path
		name = ""
	}
	files, err := docsFiles()
	if err != nil {
		return fmt.Errorf("the files of the reference: %w", err)
	}
	file, ok := files[name]
	if !ok {
		return earmark.Errorf(earmark.CodeNotFound, "there is nothing at this path; the API reference is at /docs")
	}
	return file.serve(c)
}
