package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

func (s *server) overview(c *gin.Context) error {
	if err := noQuery(c); err != nil {
		return err
	}
	overview, err := s.ledger.Overview(c.Request.Context(), earmark.DefaultTenant)
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
