package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

func (s *server) createBudget(c *gin.Context) error {
	if err := noQuery(c); err != nil {
		return err
	}
	// Defaults first: what the body then says, even "", is judged as it was said.
	request := earmark.BudgetRequest{}.WithDefaults()
	if err := decodeBody(c, &request); err != nil {
		return err
	}
	if err := request.Validate(); err != nil {
		return err
	}
	budget, err := inQueue(c.Request.Context(), s.queues.changes, func() (*earmark.Budget, error) {
		return s.ledger.CreateBudget(c.Request.Context(), earmark.DefaultTenant, request, earmark.ActorAPI)
	})
	if err != nil {
		return err
	}
	c.Header("Location", "/v1/budgets/"+budget.ID)
	return answer(c, http.StatusCreated, budget)
}

func (s *server) listBudgets(c *gin.Context) error {
	filter, err := budgetFilter(c)
	if err != nil {
		return err
	}
	page, err := inQueue(c.Request.Context(), s.queues.lists, func() (earmark.Page[earmark.Budget], error) {
		return s.ledger.Budgets(c.Request.Context(), earmark.DefaultTenant, filter)
	})
	if err != nil {
		return err
	}
	page.Data = orEmpty(page.Data)
	return answer(c, http.StatusOK, page)
}

func budgetFilter(c *gin.Context) (filter earmark.BudgetFilter, err error) {
	q, err := readQuery(c, "scope", "covering", "cursor", "limit")
	if err != nil {
		return filter, err
	}
	if filter.Scope, err = q.scope("scope"); err != nil {
		return filter, err
	}
	if filter.Covering, err = q.scope("covering"); err != nil {
		return filter, err
	}
	if filter.Scope != "" && filter.Covering != "" {
		return filter, earmark.Invalidf("covering", "does not go with scope; give one of them")
	}
	filter.Cursor, filter.Limit, err = q.page()
	return filter, err
}

func (s *server) getBudget(c *gin.Context) error {
	id, err := budgetID(c)
	if err != nil {
		return err
	}
	budget, err := inQueue(c.Request.Context(), s.queues.reads, func() (*earmark.Budget, error) {
		return s.ledger.Budget(c.Request.Context(), earmark.DefaultTenant, id)
	})
	return answerBudget(c, id, budget, err)
}

func (s *server) patchBudget(c *gin.Context) error {
	id, err := budgetID(c)
	if err != nil {
		return err
	}
	var patch earmark.BudgetPatch
	if err := decodeBody(c, &patch); err != nil {
		return err
	}
	if err := patch.Validate(); err != nil {
		return err
	}
	budget, err := inQueue(c.Request.Context(), s.queues.changes, func() (*earmark.Budget, error) {
		return s.ledger.PatchBudget(c.Request.Context(), earmark.DefaultTenant, id, patch, earmark.ActorAPI)
	})
	return answerBudget(c, id, budget, err)
}

func (s *server) archiveBudget(c *gin.Context) error {
	id, err := budgetID(c)
	if err != nil {
		return err
	}
	budget, err := inQueue(c.Request.Context(), s.queues.changes, func() (*earmark.Budget, error) {
		return s.ledger.ArchiveBudget(c.Request.Context(), earmark.DefaultTenant, id, earmark.ActorAPI)
	})
	return answerBudget(c, id, budget, err)
}

func answerBudget(c *gin.Context, id string, budget *earmark.Budget, err error) error {
	switch {
	case err != nil:
		return err
	case budget == nil:
		return noBudgetWithID(id)
	}
	return answer(c, http.StatusOK, budget)
}

// budgetID reads the id in the path. What has not the form of one cannot exist.
func budgetID(c *gin.Context) (string, error) {
	id := c.Param("id")
	if !earmark.IsBudgetID(id) {
		return "", noBudgetWithID(id)
	}
	return id, noQuery(c)
}

func noBudgetWithID(id string) error {
	return earmark.Errorf(earmark.CodeNotFound, "there is no budget with the id %q", earmark.Clip(id))
}
