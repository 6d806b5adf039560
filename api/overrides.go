package api

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// overrideBody is the body of a new override.
type overrideBody struct {
	Amount      int64  `json:"amount"`
	EffectiveAt string `json:"effective_at"`
	ExpiresAt   string `json:"expires_at"`
	Windows     *int64 `json:"windows"`
	Reason      string `json:"reason"`
}

func (b overrideBody) request() (earmark.OverrideRequest, error) {
	request := earmark.OverrideRequest{Amount: b.Amount, Windows: b.Windows, Reason: b.Reason}
	var err error
	if request.EffectiveAt, err = moment("effective_at", b.EffectiveAt); err != nil {
		return request, err
	}
	if request.ExpiresAt, err = moment("expires_at", b.ExpiresAt); err != nil {
		return request, err
	}
	return request, request.Validate()
}

// moment reads an optional time; nil for "".
func moment(field, text string) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	at, err := earmark.ParseTime(field, text)
	if err != nil {
		return nil, err
	}
	return &at, nil
}

// createOverride requires a key, because a repeated override would count twice.
func (s *server) createOverride(c *gin.Context) error {
	id, key, err := keyedChange(c, "override")
	if err != nil {
		return err
	}
	var body overrideBody
	if err := decodeBody(c, &body); err != nil {
		return err
	}
	request, err := body.request()
	if err != nil {
		return err
	}
	override, err := changeOf(s, c, id, func() (*earmark.Override, error) {
		return s.ledger.CreateOverride(c.Request.Context(), callerOf(c).tenant, id, key, request, callerOf(c).actor())
	})
	return answerOverride(c, override, err)
}

// resetBudget requires a key as createOverride does: usage may have come in between.
func (s *server) resetBudget(c *gin.Context) error {
	id, key, err := keyedChange(c, "reset")
	if err != nil {
		return err
	}
	request, err := reasonOf(c)
	if err != nil {
		return err
	}
	override, err := changeOf(s, c, id, func() (*earmark.Override, error) {
		return s.ledger.ResetBudget(c.Request.Context(), callerOf(c).tenant, id, key, request, callerOf(c).actor())
	})
	return answerOverride(c, override, err)
}

func answerOverride(c *gin.Context, override *earmark.Override, err error) error {
	if err != nil {
		return err
	}
	if override.Replayed {
		c.Header(idempotencyHitHeader, "true")
	}
	return answer(c, http.StatusCreated, override)
}

func (s *server) endOverride(c *gin.Context) error {
	id, err := budgetID(c)
	if err != nil {
		return err
	}
	request, err := reasonOf(c)
	if err != nil {
		return err
	}
	override, err := changeOf(s, c, id, func() (*earmark.Override, error) {
		ended, err := s.ledger.EndOverride(c.Request.Context(), callerOf(c).tenant, id, c.Param("override_id"), callerOf(c).actor(), request.Reason)
		if err == nil && ended == nil {
			err = earmark.Errorf(earmark.CodeNotFound, "the budget has no override with the id %q", earmark.Clip(c.Param("override_id")))
		}
		return ended, err
	})
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, override)
}

func (s *server) listOverrides(c *gin.Context) error {
	return listOfBudget(s, c, s.ledger.Overrides)
}

// reasonOf reads a body that is a reason alone.
func reasonOf(c *gin.Context) (request earmark.ReasonRequest, err error) {
	if err := decodeBody(c, &request); err != nil {
		return request, err
	}
	return request, request.Validate()
}

// keyedChange reads the budget and the key of a change that must apply once.
func keyedChange(c *gin.Context, what string) (id, key string, err error) {
	if id, err = budgetID(c); err != nil {
		return "", "", err
	}
	if key, err = idempotencyKey(c); err != nil {
		return "", "", err
	}
	if key == "" {
		return "", "", earmark.Invalidf(idempotencyKeyHeader, "is missing; give a key of 1 to %d printable ASCII characters that names this %s", earmark.MaxIdempotencyKey, what)
	}
	return id, key, nil
}

// changeOf makes a change of a budget that the caller may see; nil means that there is no such budget.
func changeOf[T any](s *server, c *gin.Context, id string, change func() (*T, error)) (*T, error) {
	if callerOf(c).bound() {
		if budget, err := s.visibleBudget(c, id); err != nil || budget == nil {
			return nil, cmp.Or(err, noBudgetWithID(id))
		}
	}
	changed, err := inQueue(c.Request.Context(), s.queues.changes, callerOf(c).turn(), change)
	if err == nil && changed == nil {
		err = noBudgetWithID(id)
	}
	return changed, err
}

// listOfBudget answers a page of what belongs to a budget.
func listOfBudget[T any](s *server, c *gin.Context, list func(ctx context.Context, tenant, budgetID string, f earmark.PageFilter) (earmark.Page[T], error)) error {
	id := c.Param("id")
	if !earmark.IsBudgetID(id) {
		return noBudgetWithID(id)
	}
	q, err := readQuery(c, "cursor", "limit")
	if err != nil {
		return err
	}
	var filter earmark.PageFilter
	if filter.Cursor, filter.Limit, err = q.page(); err != nil {
		return err
	}
	if budget, err := s.visibleBudget(c, id); err != nil || budget == nil {
		return cmp.Or(err, noBudgetWithID(id))
	}
	page, err := inQueue(c.Request.Context(), s.queues.lists, callerOf(c).turn(), func() (earmark.Page[T], error) {
		return list(c.Request.Context(), callerOf(c).tenant, id, filter)
	})
	if err != nil {
		return err
	}
	page.Data = orEmpty(page.Data)
	return answer(c, http.StatusOK, page)
}
