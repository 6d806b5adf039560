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

// The API reference is openapi.yaml in Swagger UI, which tools/docs/build.sh
// takes from its package. Its files are part of the program: the page asks
// nobody else for anything, and works where there is no Internet.
//
//go:embed docs
var docsFS embed.FS

// docsPolicy lets the page load its own files and call its own server. The images
// are those that Swagger UI's stylesheet has within it.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// docsFiles are the files of the reference by their path below docs/.
var docsFiles = sync.OnceValues(func() (map[string]pageFile, error) {
	return pageFiles(docsFS, "docs", docsPolicy)
})

// docs serves the API reference and what it is made of.
func docs(c *gin.Context) error {
	name := strings.TrimPrefix(c.Param("file"), "/")
	switch {
	case c.Param("file") == "":
		name = pageIndex
	case name == "": // The page's links are relative, so that it works behind a proxy under any path.
		c.Header("Location", "../docs")
		c.Status(http.StatusPermanentRedirect)
		return nil
	case name == pageIndex: // its links lead nowhere from here
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
