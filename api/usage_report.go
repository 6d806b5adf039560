package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

const csvType = "text/csv"

// usageReport answers what a budget was charged over time, as JSON or as CSV.
func (s *server) usageReport(c *gin.Context) error {
	id := c.Param("id")
	if !earmark.IsBudgetID(id) {
		return noBudgetWithID(id)
	}
	query, err := usageQuery(c)
	if err != nil {
		return err
	}
	report, err := inQueue(c.Request.Context(), s.queues.lists, callerOf(c).turn(), func() (*earmark.UsageReport, error) {
		if callerOf(c).bound() {
			budget, err := s.ledger.Budget(c.Request.Context(), callerOf(c).tenant, id)
			if err != nil || budget == nil || !callerOf(c).covers(budget.Scope) {
				return nil, err
			}
		}
		return s.ledger.UsageReport(c.Request.Context(), callerOf(c).tenant, id, query)
	})
	if err != nil {
		return err
	}
	if report == nil {
		return noBudgetWithID(id)
	}
	c.Header("Vary", "Accept")
	if c.NegotiateFormat("application/json", csvType) == csvType {
		c.Data(http.StatusOK, csvType+"; charset=utf-8", report.CSV())
		return nil
	}
	shown := *report
	shown.Data = orEmpty(shown.Data)
	return answer(c, http.StatusOK, shown)
}

func usageQuery(c *gin.Context) (query earmark.UsageQuery, err error) {
	q, err := readQuery(c, "from", "to", "by")
	if err != nil {
		return query, err
	}
	if query.From, err = q.moment("from"); err != nil {
		return query, err
	}
	if query.To, err = q.moment("to"); err != nil {
		return query, err
	}
	if q.values.Has("by") && q.values.Get("by") == "" {
		return query, earmark.Invalidf("by", "is empty; use one of hour, day, scope, metadata.KEY")
	}
	query.By = q.values.Get("by")
	query = query.WithDefaults()
	return query, query.Validate()
}
