package api

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// overviewKept is how long an overview is reused: many clients may watch, and with very
// many holds it costs Postgres time.
const overviewKept = 2 * time.Second

func (s *server) overview(c *gin.Context) error {
	if err := noQuery(c); err != nil {
		return err
	}
	by := callerOf(c)
	overview, err := s.overviews.get(c.Request.Context(), by.sees(), func(ctx context.Context) (earmark.Overview, error) {
		return inQueue(ctx, s.queues.lists, by.turn(), func() (earmark.Overview, error) { return s.ledger.Overview(ctx, by.tenant, by.within()) })
	})
	if err != nil {
		return err
	}
	shown := make([]earmark.Reservation, 0, len(overview.Oldest))
	for _, reservation := range overview.Oldest {
		shown = append(shown, s.show(&reservation))
	}
	overview.Oldest = shown
	return answer(c, http.StatusOK, overview)
}
