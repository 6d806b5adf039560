package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
)

// grantBody is the body of a new grant.
type grantBody struct {
	Amount      int64  `json:"amount"`
	EffectiveAt string `json:"effective_at"`
	ExpiresAt   string `json:"expires_at"`
	Priority    *int64 `json:"priority"`
	Reason      string `json:"reason"`
}

func (b grantBody) request() (earmark.GrantRequest, error) {
	request := earmark.GrantRequest{Amount: b.Amount, Priority: b.Priority, Reason: b.Reason}
	var err error
	if request.EffectiveAt, err = moment("effective_at", b.EffectiveAt); err != nil {
		return request, err
	}
	if request.ExpiresAt, err = moment("expires_at", b.ExpiresAt); err != nil {
		return request, err
	}
	return request.WithDefaults(), request.Validate()
}

// createGrant requires a key, because a repeated grant would count twice.
func (s *server) createGrant(c *gin.Context) error {
	id, key, err := keyedChange(c, "grant")
	if err != nil {
		return err
	}
	var body grantBody
	if err := decodeBody(c, &body); err != nil {
		return err
	}
	request, err := body.request()
	if err != nil {
		return err
	}
	grant, err := changeOf(s, c, id, func() (*earmark.Grant, error) {
		return s.ledger.CreateGrant(c.Request.Context(), callerOf(c).tenant, id, key, request, callerOf(c).actor())
	})
	if err != nil {
		return err
	}
	if grant.Replayed {
		c.Header(idempotencyHitHeader, "true")
	}
	return answer(c, http.StatusCreated, grant)
}

func (s *server) voidGrant(c *gin.Context) error {
	id, err := budgetID(c)
	if err != nil {
		return err
	}
	request, err := reasonOf(c)
	if err != nil {
		return err
	}
	grant, err := changeOf(s, c, id, func() (*earmark.Grant, error) {
		voided, err := s.ledger.VoidGrant(c.Request.Context(), callerOf(c).tenant, id, c.Param("grant_id"), callerOf(c).actor(), request.Reason)
		if err == nil && voided == nil {
			err = earmark.Errorf(earmark.CodeNotFound, "the budget has no grant with the id %q", earmark.Clip(c.Param("grant_id")))
		}
		return voided, err
	})
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, grant)
}

func (s *server) listGrants(c *gin.Context) error {
	return listOfBudget(s, c, s.ledger.Grants)
}
