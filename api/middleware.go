package api

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// observe counts and logs a call. It logs the route, never the query or the body.
func (s *server) observe(c *gin.Context) {
	started := time.Now()
	c.Next()
	took := time.Since(started)
	s.metrics.request(c, took)
	id := subjectOf(c).reservationID
	describeSpan(c, id)

	level := slog.LevelDebug
	if c.Writer.Status() >= http.StatusInternalServerError {
		level = slog.LevelInfo
	}
	attrs := []slog.Attr{
		slog.String("method", c.Request.Method),
		slog.String("route", c.FullPath()),
		slog.Int("status", c.Writer.Status()),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
	}
	if id != "" {
		attrs = append(attrs, slog.String("reservation_id", id))
	}
	if by := callerOf(c); by.tenant != "" {
		attrs = append(attrs, slog.String("tenant", by.tenant))
		if by.key != nil {
			attrs = append(attrs, slog.String("key", by.key.ID))
		}
	}
	s.log.LogAttrs(c.Request.Context(), level, "call answered", attrs...)
}

// recoverPanic answers `internal` if a handler panicked.
func (s *server) recoverPanic(c *gin.Context) {
	defer func() {
		fault := recover()
		if fault == nil {
			return
		}
		if fault == http.ErrAbortHandler { //nolint:errorlint // net/http panics with this very value
			panic(fault)
		}
		c.Abort()
		s.log.LogAttrs(c.Request.Context(), slog.LevelError, "handler panicked",
			slog.String("route", c.FullPath()),
			slog.Any("panic", fault),
			slog.String("stack", string(debug.Stack())))
		s.fail(c, earmark.Errorf(earmark.CodeInternal, "a handler panicked: %v", fault))
	}()
	c.Next()
}

// closeConnections closes each connection after its answer once the process is about to
// stop, so that its caller does not send the next call on a connection that will soon
// close.
func (s *server) closeConnections(c *gin.Context) {
	if s.isStopping() {
		c.Header("Connection", "close")
	}
	c.Next()
}

// limitTime ends the work on a call at handlerTimeout, so that its answer is sent before
// the server closes the connection. A stream of events has its own limit.
func limitTime(c *gin.Context) {
	if wantsStream(c) {
		c.Next()
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), handlerTimeout)
	defer cancel()
	c.Request = c.Request.WithContext(ctx)
	c.Next()
}
