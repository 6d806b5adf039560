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
	"time"

	"github.com/gin-gonic/gin"
)

// pageIndex is the page itself among its files.
const pageIndex = "index.html"

// pageTypes are the media types by extension. The machine's own table differs from machine
// to machine.
var pageTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// pageFile is a file of an HTML page.
type pageFile struct {
	contentType string
	policy      string // what the page may load and call
	content     []byte // compressed with gzip
	tag         string
}

// pageFiles returns the files of a page by path below dir. It compresses files that are not
// embedded compressed.
func pageFiles(embedded embed.FS, dir, policy string) (map[string]pageFile, error) {
	files := make(map[string]pageFile)
	err := fs.WalkDir(embedded, dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := embedded.ReadFile(name)
		if err != nil {
			return err
		}
		name, compressed := strings.CutSuffix(strings.TrimPrefix(name, dir+"/"), ".gz")
		contentType, served := pageTypes[path.Ext(name)]
		if !served { // for example checksums, which only the build uses
			return nil
		}
		if !compressed {
			content = gzipped(content)
		}
		sum := sha256.Sum256(content)
		files[name] = pageFile{contentType, policy, content, hex.EncodeToString(sum[:8])}
		return nil
	})
	return files, err
}

// serve answers with the file, compressed if the caller accepts that. A browser caches it
// and revalidates it.
func (f pageFile) serve(c *gin.Context) error {
	content, tag := f.content, f.tag
	c.Header("Vary", "Accept-Encoding")
	if acceptsGzip(c.GetHeader("Accept-Encoding")) {
		c.Header("Content-Encoding", "gzip")
		tag += "-gz"
	} else {
		var err error
		if content, err = gunzip(content); err != nil {
			return fmt.Errorf("a file of a page: %w", err)
		}
	}
	c.Header("Content-Type", f.contentType)
	c.Header("Cache-Control", "no-cache")
	c.Header("ETag", `"`+tag+`"`)
	c.Header("Content-Security-Policy", f.policy)
	c.Header("X-Content-Type-Options", "nosniff")
	c.Header("Referrer-Policy", "no-referrer")
	http.ServeContent(c.Writer, c.Request, "", time.Time{}, bytes.NewReader(content))
	return nil
}

func gzipped(content []byte) []byte {
	var buffer bytes.Buffer
	writer := gzip.NewWriter(&buffer)
	_, _ = writer.Write(content) // a buffer takes everything
	_ = writer.Close()
	return buffer.Bytes()
}

func gunzip(content []byte) ([]byte, error) {
	reader, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(reader)
}

// acceptsGzip reads an Accept-Encoding header. It requires gzip by name, with a weight
// other than 0.
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
