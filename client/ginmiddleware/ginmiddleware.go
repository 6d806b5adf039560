// Package ginmiddleware guards gin handlers with Earmark, as package middleware
// guards net/http handlers; see there for what is settled and how.
//
//	router.POST("/chat", ginmiddleware.Guard(earmarks, ask), chat)
//
// The handlers after it count with Meter(c). Put gin.Recovery in front of it.
package ginmiddleware

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/client/middleware"
)

// AskFunc derives what to set aside from a request, as a middleware.AskFunc does.
type AskFunc func(*gin.Context) (middleware.Ask, error)

// Guard guards the handlers that come after it. A request that is not admitted is
// aborted with middleware.WriteProblem, or what middleware.WithRefusal says.
func Guard(c *client.Client, ask AskFunc, options ...middleware.Option) gin.HandlerFunc {
	return func(g *gin.Context) {
		admitted := false
		next := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			admitted = true
			g.Request = r
			g.Next()
		})
		askHere := func(*http.Request) (middleware.Ask, error) { return ask(g) }
		middleware.Handler(c, askHere, next, options...).ServeHTTP(g.Writer, g.Request)
		if !admitted {
			g.Abort()
		}
	}
}

// Meter returns the meter of the guarded request.
func Meter(g *gin.Context) *client.Meter { return middleware.Meter(g.Request.Context()) }

// NothingSent says that the request was answered without spending anything.
func NothingSent(g *gin.Context) { middleware.NothingSent(g.Request.Context()) }

// Reservation returns what was set aside for the guarded request.
func Reservation(g *gin.Context) *earmark.Reservation {
	return middleware.Reservation(g.Request.Context())
}
