package ginmiddleware_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/client"
	"github.com/earmark-dev/earmark/client/ginmiddleware"
	"github.com/earmark-dev/earmark/client/internal/fake"
	"github.com/earmark-dev/earmark/client/middleware"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.TestMode)
	goleak.VerifyTestMain(m)
}

func ask(c *gin.Context) (middleware.Ask, error) {
	if c.Param("tenant") == "nobody" {
		return middleware.Ask{}, earmark.Errorf(earmark.CodeInvalidRequest, "who is that?")
	}
	body, err := middleware.PeekBody(c.Request, 10)
	tokens := int64(600)
	if string(body) == "large" {
		tokens = 5000
	}
	return middleware.Ask{Request: earmark.ReservationRequest{
		Scopes: []string{c.Param("tenant")}, Amounts: earmark.Amounts{"tokens": tokens}, OnExpiry: earmark.OnExpiryRelease,
	}}, err
}

func setup(t *testing.T, handlers ...gin.HandlerFunc) (*fake.Earmark, func(path, body string) *httptest.ResponseRecorder) {
	t.Helper()
	return setupWith(t, nil, handlers...)
}

func setupWith(t *testing.T, options []middleware.Option, handlers ...gin.HandlerFunc) (*fake.Earmark, func(path, body string) *httptest.ResponseRecorder) {
	t.Helper()
	e := &fake.Earmark{Limit: 1000}
	c, err := client.New("http://earmark.test", client.WithHTTPClient(&http.Client{Transport: e}), client.WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(t, err)
	router := gin.New()
	router.Use(gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, _ any) { c.AbortWithStatus(http.StatusInternalServerError) }))
	router.POST("/:tenant", append([]gin.HandlerFunc{ginmiddleware.Guard(c, ask, options...)}, handlers...)...)
	return e, func(path, body string) *httptest.ResponseRecorder {
		recorder := httptest.NewRecorder()
		router.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
		return recorder
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	e, post := setup(t,
		func(c *gin.Context) { ginmiddleware.Meter(c).Add(earmark.Amounts{"tokens": 1}) },
		func(c *gin.Context) {
			ginmiddleware.Meter(c).Add(earmark.Amounts{"tokens": 2})
			body, _ := io.ReadAll(c.Request.Body)
			c.String(http.StatusOK, "%s %s", body, ginmiddleware.Reservation(c).Amounts)
			c.Writer.Flush()
		})
	recorder := post("/acme", "hello")
	require.Equal(t, http.StatusOK, recorder.Code)
	require.Equal(t, "hello 600 tokens", recorder.Body.String())
	require.True(t, recorder.Flushed)
	require.Equal(t, earmark.Amounts{"tokens": 3}, e.Reservations()[0].Usage)
}

func TestRefused(t *testing.T) {
	t.Parallel()
	e, post := setup(t, func(*gin.Context) { t.Error("the handler ran") })
	require.Equal(t, http.StatusBadRequest, post("/nobody", "").Code)
	recorder := post("/acme", "large")
	require.Equal(t, http.StatusPaymentRequired, recorder.Code)
	require.Equal(t, "application/problem+json", recorder.Header().Get("Content-Type"))
	require.NotContains(t, recorder.Body.String(), "violations", "budgets are not for every caller")
	require.Equal(t, []string{"reserve"}, e.Verbs())
}

func TestRefusedWithViolations(t *testing.T) {
	t.Parallel()
	_, post := setupWith(t, []middleware.Option{middleware.WithViolations()}, func(*gin.Context) { t.Error("the handler ran") })
	recorder := post("/acme", "large")
	require.Equal(t, http.StatusPaymentRequired, recorder.Code)
	require.Contains(t, recorder.Body.String(), `"violations":[{`)
}

func TestPanicIsCharged(t *testing.T) {
	t.Parallel()
	e, post := setup(t, func(c *gin.Context) {
		ginmiddleware.Meter(c).Add(earmark.Amounts{"tokens": 2})
		panic("boom")
	})
	require.Equal(t, http.StatusInternalServerError, post("/acme", "").Code)
	require.Equal(t, []string{"reserve", "commit"}, e.Verbs())
}

func TestNothingSent(t *testing.T) {
	t.Parallel()
	e, post := setup(t, func(c *gin.Context) { ginmiddleware.NothingSent(c); c.Status(http.StatusNoContent) })
	require.Equal(t, http.StatusNoContent, post("/acme", "").Code)
	require.Equal(t, []string{"reserve", "release"}, e.Verbs())
}

func TestSaysNothing(t *testing.T) {
	t.Parallel()
	e, post := setup(t, func(*gin.Context) {})
	require.Equal(t, http.StatusOK, post("/acme", "").Code)
	require.Equal(t, []string{"reserve"}, e.Verbs())
}

// Guard a gin handler.
func ExampleGuard() {
	pretend := &fake.Earmark{Limit: 1000}
	earmarkURL, stop := pretend.Serve()
	defer stop()
	earmarks, err := client.New(earmarkURL)
	if err != nil {
		fmt.Println(err)
		return
	}
	ask := func(c *gin.Context) (middleware.Ask, error) {
		return middleware.Ask{Request: earmark.ReservationRequest{
			Scopes: []string{"acme/ml/" + c.Param("user")}, Amounts: earmark.Amounts{"tokens": 600}, OnExpiry: earmark.OnExpiryCommit,
		}}, nil
	}
	router := gin.New()
	router.Use(gin.Recovery())
	router.POST("/chat/:user", ginmiddleware.Guard(earmarks, ask), func(c *gin.Context) {
		for _, word := range []string{"one ", "two ", "three"} {
			ginmiddleware.Meter(c).Add(earmark.Amounts{"tokens": 1})
			_, _ = c.Writer.WriteString(word)
			c.Writer.Flush()
		}
	})

	recorder := httptest.NewRecorder()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "/chat/u1", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	router.ServeHTTP(recorder, request)
	fmt.Println(recorder.Code, recorder.Body)
	for _, reservation := range pretend.Reservations() {
		fmt.Println(reservation.Scopes, reservation.State, reservation.Usage)
	}
	// Output:
	// 200 one two three
	// [acme/ml/u1] committed 3 tokens
}
