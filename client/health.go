package client

import (
	"context"
	"encoding/json"
	"net/http"
)

// Check is the state of one dependency of the service.
type Check struct {
	Status string `json:"status"` // "up" or "down"
	Detail string `json:"detail"` // why it is down, or a remark
}

// Health returns nil if the service's process answers. The call is not repeated.
func (c *Client) Health(ctx context.Context) error {
	_, err := c.exchange(ctx, call{method: http.MethodGet, path: "/healthz"}, nil)
	return err
}

// Ready returns the checks of "postgres" and "temporal". The error is CodeUnavailable if
// one is away; the checks are returned then too. The call is not repeated.
func (c *Client) Ready(ctx context.Context) (map[string]Check, error) {
	answer, err := c.send(ctx, call{method: http.MethodGet, path: "/readyz"}, nil)
	if err != nil {
		return nil, err
	}
	var readiness struct {
		Checks map[string]Check `json:"checks"`
	}
	err = json.Unmarshal(answer.body, &readiness)
	switch {
	case answer.status != http.StatusOK: // with checks or without
		return readiness.Checks, answer.problem()
	case err != nil:
		return nil, undecodable(err)
	}
	return readiness.Checks, nil
}
