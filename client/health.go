package client

import (
	"context"
	"encoding/json"
	"net/http"
)

// Check is what the service says of one thing that it needs.
type Check struct {
	Status string `json:"status"` // "up" or "down"
	Detail string `json:"detail"` // why it is down, or what there is to know of it
}

// Health is nil when the service's process answers. It is not repeated.
func (c *Client) Health(ctx context.Context) error {
	_, err := c.exchange(ctx, call{method: http.MethodGet, path: "/healthz"}, nil)
	return err
}

// Ready reports on "postgres" and "temporal". The error is CodeUnavailable when one
// is away; the checks are given then too. It is not repeated.
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
