package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// A handler derives the id of what it reserves or charges itself: no middleware has to
// run before it but the one that finds out who calls.
func TestSubjectNeedsNoMiddleware(t *testing.T) {
	t.Parallel()
	f := &fake{preflight: fits(), result: earmark.Result{Outcome: earmark.OutcomeApplied, Reservation: reservationIn(earmark.StateHeld)}}
	s := &server{queues: newQueues(), ledger: f, coordinator: fakeCoordinator{f}, preflightTimeout: readyTimeout, metrics: newMetrics(prometheus.NewRegistry())}
	router := gin.New()
	router.Use(func(c *gin.Context) { c.Set(callerKey, identity{caller: anybody}) })
	router.POST("/v1/reservations", s.handle(s.reserve))
	router.POST("/v1/usage", s.handle(s.chargeUsage))
	call := func(path, key string) {
		request := httptest.NewRequest(http.MethodPost, path, strings.NewReader(reserveBody))
		request.Header.Set("Content-Type", "application/json")
		if key != "" {
			request.Header.Set(idempotencyKeyHeader, key)
		}
		recorder := httptest.NewRecorder()
		router.ServeHTTP(recorder, request)
		require.Equal(t, http.StatusCreated, recorder.Code, recorder.Body)
	}
	call("/v1/reservations", testKey)
	require.Equal(t, testReservationID, f.last().(earmark.Admission).ID)
	call("/v1/reservations", "")
	require.True(t, earmark.IsReservationID(f.last().(earmark.Admission).ID))
	call("/v1/usage", testKey)
	require.Equal(t, testReservationID, f.last().(earmark.Charge).ID)
}
