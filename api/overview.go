package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// overviewFor is how long an overview is told again: with very many holds one costs
// Postgres something, and many may watch.
const overviewFor = 2 * time.Second

// overviews asks the ledger once for all who ask at the same time.
type overviews struct {
	ledger Ledger

	mu   sync.Mutex
	at   time.Time
	told earmark.Overview
}

func (o *overviews) latest(ctx context.Context) (earmark.Overview, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.at) < overviewFor {
		return o.told, nil
	}
	asked := time.Now()
	overview, err := o.ledger.Overview(ctx, earmark.DefaultTenant)
	if err != nil {
		return earmark.Overview{}, err
	}
	o.at, o.told = asked, overview
	return overview, nil
}

func (s *server) overview(c *gin.Context) error {
	if err := noQuery(c); err != nil {
		return err
	}
	overview, err := s.overviews.latest(c.Request.Context())
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
