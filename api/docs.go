package api

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

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

// docsIndex is the page itself, at /docs; everything else is below it.
const docsIndex = "index.html"

// docsTypes are the media types by extension. The machine's own table is not
// asked, for it differs from machine to machine.
var docsTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// docsFile is a file of the reference as it was embedded.
type docsFile struct {
	contentType string
	content     []byte
	compressed  bool // content is gzip's
	tag         string
}

// docsFiles are the files of the reference by their path below docs/.
var docsFiles = sync.OnceValues(func() (map[string]docsFile, error) {
	files := make(map[string]docsFile)
	err := fs.WalkDir(docsFS, "docs", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := docsFS.ReadFile(name)
		if err != nil {
			return err
		}
		name, compressed := strings.CutSuffix(strings.TrimPrefix(name, "docs/"), ".gz")
		contentType, served := docsTypes[path.Ext(name)]
		if !served { // the checksums, which are for the build
			return nil
		}
		sum := sha256.Sum256(content)
		files[name] = docsFile{contentType, content, compressed, hex.EncodeToString(sum[:8])}
		return nil
	})
	return files, err
})

// docs serves the API reference and what it is made of.
func docs(c *gin.Context) error {
	name := strings.TrimPrefix(c.Param("file"), "/")
	switch {
	case c.Param("file") == "":
		name = docsIndex
	case name == "": // The page's links are relative, so that it works behind a proxy under any path.
		c.Header("Location", "../docs")
		c.Status(http.StatusPermanentRedirect)
		return nil
	case name == docsIndex: // its links lead nowhere from here
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

// serve answers with the file as it is stored where the caller takes that. A
// browser keeps it and asks whether it is still the same.
func (f docsFile) serve(c *gin.Context) error {
	content, tag := f.content, f.tag
	if f.compressed {
		c.Header("Vary", "Accept-Encoding")
		if acceptsGzip(c.GetHeader("Accept-Encoding")) {
			c.Header("Content-Encoding", "gzip")
			tag += "-gz"
		} else {
			var err error
			if content, err = gunzip(content); err != nil {
				return fmt.Errorf("a file of the reference: %w", err)
			}
		}
	}
	c.Header("Content-Type", f.contentType)
	c.Header("Cache-Control", "no-cache")
	c.Header("ETag", `"`+tag+`"`)
	c.Header("Content-Security-Policy", docsPolicy)
	c.Header("X-Content-Type-Options", "nosniff")
	c.Header("Referrer-Policy", "no-referrer")
	http.ServeContent(c.Writer, c.Request, "", time.Time{}, bytes.NewReader(content))
	return nil
}

func gunzip(content []byte) ([]byte, error) {
	reader, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(reader)
}

// acceptsGzip reads an Accept-Encoding header. A gzip that it does not name is not
// assumed, and one with a weight of 0 is refused.
func acceptsGzip(header string) bool {
	for coding := range strings.SplitSeq(header, ",") {
		name, weight, _ := strings.Cut(coding, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			weight = strings.ReplaceAll(weight, " ", "")
			return !strings.HasPrefix(weight, "q=0") || strings.Trim(weight, "q=0.") != ""
		}
	}
	return false
}
