package api

import (
	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// refuseStrangers refuses calls that a page of another site makes a browser send.
func (s *server) refuseStrangers(c *gin.Context) {
	if err := s.access.Check(c.Request); err != nil {
		c.Header("Cache-Control", "no-store")
		s.fail(c, err)
		c.Abort()
		return
	}
	c.Next()
}

func forbidden(field, format string, args ...any) error {
	err := earmark.Errorf(earmark.CodeForbidden, format, args...)
	err.Field = field
	return err
}
