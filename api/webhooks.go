package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/webhook"
)

const webhooksPath = "/v1/webhooks"

// maxWebhookTests bounds the tests of endpoints that run at once in this process: one that does not answer takes 15 s.
const maxWebhookTests = 20

// replayBody is the body of a replay.
type replayBody struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// createWebhook answers with the secret, as the rotation does; no other answer contains it.
func (s *server) createWebhook(c *gin.Context) error {
	var request earmark.WebhookRequest
	if err := decodeManaged(c, &request); err != nil {
		return err
	}
	if err := s.allowedWebhooks.ValidateURL("url", request.URL); err != nil {
		return err
	}
	if err := request.Validate(); err != nil {
		return err
	}
	issued, err := changeWebhook(s, c, func(ctx context.Context) (*earmark.IssuedWebhook, error) {
		return s.ledger.CreateWebhook(ctx, callerOf(c).tenant, request, callerOf(c).actor())
	})
	if err != nil {
		return err
	}
	return answer(c, http.StatusCreated, issued)
}

func (s *server) listWebhooks(c *gin.Context) error {
	return s.listManaged(c, func(filter earmark.PageFilter) (any, error) {
		page, err := s.ledger.Webhooks(c.Request.Context(), callerOf(c).tenant, filter)
		page.Data = orEmpty(page.Data)
		return page, err
	})
}

func (s *server) getWebhook(c *gin.Context) error {
	if err := noQuery(c); err != nil {
		return err
	}
	w, err := s.webhook(c)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, w)
}

func (s *server) patchWebhook(c *gin.Context) error {
	var patch earmark.WebhookPatch
	if err := decodeManaged(c, &patch); err != nil {
		return err
	}
	if patch.URL != nil {
		if err := s.allowedWebhooks.ValidateURL("url", *patch.URL); err != nil {
			return err
		}
	}
	if err := patch.Validate(); err != nil {
		return err
	}
	return s.answerWebhook(c, func(ctx context.Context) (*earmark.Webhook, error) {
		return s.ledger.PatchWebhook(ctx, callerOf(c).tenant, c.Param("id"), patch, callerOf(c).actor())
	})
}

func (s *server) deleteWebhook(c *gin.Context) error {
	if err := noQuery(c); err != nil {
		return err
	}
	return s.answerWebhook(c, func(ctx context.Context) (*earmark.Webhook, error) {
		return s.ledger.DeleteWebhook(ctx, callerOf(c).tenant, c.Param("id"), callerOf(c).actor())
	})
}

func (s *server) rotateWebhookSecret(c *gin.Context) error {
	if err := decodeNothing(c); err != nil {
		return err
	}
	issued, err := changeWebhook(s, c, func(ctx context.Context) (*earmark.IssuedWebhook, error) {
		return s.ledger.RotateWebhookSecret(ctx, callerOf(c).tenant, c.Param("id"), callerOf(c).actor())
	})
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, issued)
}

func (s *server) replayWebhook(c *gin.Context) error {
	var body replayBody
	if err := decodeManaged(c, &body); err != nil {
		return err
	}
	from, err := moment("from", body.From)
	if err != nil {
		return err
	}
	request := earmark.WebhookReplay{}
	if from != nil {
		request.From = *from
	}
	if request.To, err = moment("to", body.To); err != nil {
		return err
	}
	if err := request.Validate(time.Now()); err != nil {
		return err
	}
	return s.answerWebhook(c, func(ctx context.Context) (*earmark.Webhook, error) {
		return s.ledger.ReplayWebhook(ctx, callerOf(c).tenant, c.Param("id"), request, callerOf(c).actor())
	})
}

func (s *server) listDeliveries(c *gin.Context) error {
	return s.listManaged(c, func(filter earmark.PageFilter) (any, error) {
		if w, err := s.ledger.Webhook(c.Request.Context(), callerOf(c).tenant, c.Param("id")); err != nil || w == nil {
			return nil, orNoWebhook(err)
		}
		page, err := s.ledger.Deliveries(c.Request.Context(), c.Param("id"), filter)
		page.Data = orEmpty(page.Data)
		return page, err
	})
}

// testWebhook calls the endpoint from this process, once, and answers with what it answered. A disabled endpoint is called too.
func (s *server) testWebhook(c *gin.Context) error {
	if err := decodeNothing(c); err != nil {
		return err
	}
	ctx := c.Request.Context()
	target, err := inQueue(ctx, s.queues.reads, callerOf(c).turn(), func() (*webhook.Target, error) {
		return s.ledger.WebhookTarget(ctx, callerOf(c).tenant, c.Param("id"))
	})
	if err != nil || target == nil {
		return orNoWebhook(err)
	}
	select {
	case s.webhookTests <- struct{}{}:
		defer func() { <-s.webhookTests }()
	default:
		full := earmark.Errorf(earmark.CodeUnavailable, "this server makes %d tests of webhooks and makes no more; try again", maxWebhookTests)
		full.Queue, full.RetryAfter = "webhook tests", retryUnavailable
		return full
	}
	now := time.Now()
	event := earmark.Event{ID: "evt_test_" + rand.Text(), Type: earmark.EventWebhookTest, CreatedAt: now.UTC(), Scopes: []string{}, Data: json.RawMessage(`{}`)}
	message, err := webhook.MessageOf(event)
	if err != nil {
		return err
	}
	status, err := s.sender.Send(ctx, target.URL, message, now, target.Secrets...)
	return answer(c, http.StatusOK, earmark.WebhookTest{EventID: event.ID, Status: status, Error: webhook.Failure(err), DurationMS: time.Since(now).Milliseconds()})
}

func noSuchWebhook() error { return earmark.Errorf(earmark.CodeNotFound, "there is no such webhook") }

func orNoWebhook(err error) error {
	if err == nil {
		err = noSuchWebhook()
	}
	return err
}

// webhook reads the endpoint in the path.
func (s *server) webhook(c *gin.Context) (*earmark.Webhook, error) {
	if err := callerOf(c).needsNoBounds(); err != nil {
		return nil, err
	}
	w, err := inQueue(c.Request.Context(), s.queues.reads, callerOf(c).turn(), func() (*earmark.Webhook, error) {
		return s.ledger.Webhook(c.Request.Context(), callerOf(c).tenant, c.Param("id"))
	})
	if err == nil && w == nil {
		err = noSuchWebhook()
	}
	return w, err
}

// decodeManaged reads the body of a call that manages webhooks. It refuses a key that is bound to scopes, because an
// endpoint may receive the events of others.
func decodeManaged(c *gin.Context, into any) error {
	if err := callerOf(c).needsNoBounds(); err != nil {
		return err
	}
	if err := noQuery(c); err != nil {
		return err
	}
	return decodeBody(c, into)
}

// decodeNothing is decodeManaged for a call whose body may be missing and has no field.
func decodeNothing(c *gin.Context) error {
	if err := callerOf(c).needsNoBounds(); err != nil {
		return err
	}
	if err := noQuery(c); err != nil {
		return err
	}
	return decodeOptionalBody(c, &struct{}{})
}

func (s *server) listManaged(c *gin.Context, list func(earmark.PageFilter) (any, error)) error {
	q, err := readQuery(c, "cursor", "limit")
	if err != nil {
		return err
	}
	var filter earmark.PageFilter
	if filter.Cursor, filter.Limit, err = q.page(); err != nil {
		return err
	}
	if err := callerOf(c).needsNoBounds(); err != nil {
		return err
	}
	page, err := inQueue(c.Request.Context(), s.queues.lists, callerOf(c).turn(), func() (any, error) { return list(filter) })
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, page)
}

func changeWebhook[T any](s *server, c *gin.Context, change func(context.Context) (*T, error)) (*T, error) {
	if err := callerOf(c).needsNoBounds(); err != nil {
		return nil, err
	}
	changed, err := inQueue(c.Request.Context(), s.queues.changes, callerOf(c).turn(), func() (*T, error) { return change(c.Request.Context()) })
	if err == nil && changed == nil {
		err = noSuchWebhook()
	}
	return changed, err
}

func (s *server) answerWebhook(c *gin.Context, change func(context.Context) (*earmark.Webhook, error)) error {
	w, err := changeWebhook(s, c, change)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, w)
}
