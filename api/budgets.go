package api

import (
	"cmp"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

func (s *server) createBudget(c *gin.Context) error {
	if err := noQuery(c); err != nil {
		return err
	}
	// The defaults are set first, so that a value in the body, even "", replaces them and
	// is checked.
	request := earmark.BudgetRequest{}.WithDefaults()
	if err := decodeBody(c, &request); err != nil {
		return err
	}
	if err := cmp.Or(request.Validate(), callerOf(c).needsScopes("scope", request.Scope)); err != nil {
		return err
	}
	budget, err := inQueue(c.Request.Context(), s.queues.changes, callerOf(c).turn(), func() (*earmark.Budget, error) {
		return s.ledger.CreateBudget(c.Request.Context(), callerOf(c).tenant, request, callerOf(c).actor())
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
	page, err := inQueue(c.Request.Context(), s.queues.lists, callerOf(c).turn(), func() (earmark.Page[earmark.Budget], error) {
		return s.ledger.Budgets(c.Request.Context(), callerOf(c).tenant, filter)
	})
	if err != nil {
		return err
	}
	page.Data = orEmpty(page.Data)
	return answer(c, http.StatusOK, page)
}

func budgetFilter(c *gin.Context) (filter earmark.BudgetFilter, err error) {
	q, err := readQuery(c, "scope", "covering", "template_id", "cursor", "limit")
	if err != nil {
		return filter, err
	}
	if filter.Scope, err = q.budgetScope("scope"); err != nil {
		return filter, err
	}
	if filter.Covering, err = q.scope("covering"); err != nil {
		return filter, err
	}
	if filter.Scope != "" && filter.Covering != "" {
		return filter, earmark.Invalidf("covering", "does not go with scope; give one of them")
	}
	if filter.TemplateID, err = q.budgetID("template_id"); err != nil {
		return filter, err
	}
	filter.Within = callerOf(c).within()
	filter.Cursor, filter.Limit, err = q.page()
	return filter, err
}

func (s *server) getBudget(c *gin.Context) error {
	id, err := budgetID(c)
	if err != nil {
		return err
	}
	budget, err := s.visibleBudget(c, id)
	return answerBudget(c, id, budget, err)
}

// listWindows lists the balances of a budget's windows, newest first.
func (s *server) listWindows(c *gin.Context) error {
	id := c.Param("id")
	q, err := readQuery(c, "cursor", "limit")
	if err != nil {
		return err
	}
	var filter earmark.WindowFilter
	if filter.Cursor, filter.Limit, err = q.page(); err != nil {
		return err
	}
	if !earmark.IsBudgetID(id) {
		return noBudgetWithID(id)
	}
	budget, err := s.visibleBudget(c, id)
	if err != nil {
		return err
	}
	if budget == nil {
		return noBudgetWithID(id)
	}
	page, err := inQueue(c.Request.Context(), s.queues.lists, callerOf(c).turn(), func() (earmark.Page[earmark.Balance], error) {
		return s.ledger.BudgetWindows(c.Request.Context(), callerOf(c).tenant, id, filter)
	})
	if err != nil {
		return err
	}
	page.Data = orEmpty(page.Data)
	return answer(c, http.StatusOK, page)
}

// visibleBudget returns nil if there is no such budget on the scopes of the caller.
func (s *server) visibleBudget(c *gin.Context, id string) (*earmark.Budget, error) {
	budget, err := inQueue(c.Request.Context(), s.queues.reads, callerOf(c).turn(), func() (*earmark.Budget, error) {
		return s.ledger.Budget(c.Request.Context(), callerOf(c).tenant, id)
	})
	if err != nil || budget == nil || !callerOf(c).covers(budget.Scope) {
		return nil, err
	}
	return budget, nil
}

// changeBudget changes a budget that the caller may see. The scope of a budget never
// changes.
func (s *server) changeBudget(c *gin.Context, id string, change func() (*earmark.Budget, error)) error {
	budget, err := changeOf(s, c, id, change)
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
	return s.changeBudget(c, id, func() (*earmark.Budget, error) {
		return s.ledger.PatchBudget(c.Request.Context(), callerOf(c).tenant, id, patch, callerOf(c).actor())
	})
}

func (s *server) archiveBudget(c *gin.Context) error {
	id, err := budgetID(c)
	if err != nil {
		return err
	}
	return s.changeBudget(c, id, func() (*earmark.Budget, error) {
		return s.ledger.ArchiveBudget(c.Request.Context(), callerOf(c).tenant, id, callerOf(c).actor())
	})
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

// budgetID reads the id in the path. An id of another form is not found.
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
