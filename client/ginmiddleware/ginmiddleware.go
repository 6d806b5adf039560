// Package ginmiddleware guards gin handlers with Earmark, as package middleware guards
// net/http handlers. Package middleware documents what is settled and how.
//
//	router.POST("/chat", ginmiddleware.Guard(earmarks, ask), chat)
//
// The handlers after it count their usage with Meter(c). Install gin.Recovery before it.
package ginmiddleware

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/client/middleware"
)

// AskFunc returns what to set aside for a request, like middleware.AskFunc.
type AskFunc func(*gin.Context) (middleware.Ask, error)

// Guard guards the handlers after it. It aborts a request that is not admitted with
// middleware.WriteProblem, or with the answer of middleware.WithRefusal.
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

// NothingSent marks the request as answered without spending anything.
func NothingSent(g *gin.Context) { middleware.NothingSent(g.Request.Context()) }

// Reservation returns the reservation of the guarded request.
func Reservation(g *gin.Context) *earmark.Reservation {
	return middleware.Reservation(g.Request.Context())
}
