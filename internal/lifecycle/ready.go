package lifecycle

import (
	"context"
	"strings"

	"go.temporal.io/sdk/client"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/workflowstore"
)

// Ready returns nil if Temporal answers and has the search attributes. The error is
// CodeUnavailable.
func (c *Coordinator) Ready(ctx context.Context) error {
	if _, err := c.Client.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return earmark.Errorf(earmark.CodeUnavailable, "Temporal does not answer: %w", err)
	}
	if c.Unindexed {
		return nil
	}
	missing, err := workflowstore.MissingSearchAttributes(ctx, c.Client, c.Namespace)
	if err != nil {
		return earmark.Errorf(earmark.CodeUnavailable, "Temporal does not list its search attributes: %w", err)
	}
	if len(missing) > 0 {
		return earmark.Errorf(earmark.CodeUnavailable, "the Temporal namespace %s lacks the search attributes %s; run `earmark migrate up`, or use --without-search-attributes",
			c.Namespace, strings.Join(missing, ", "))
	}
	return nil
}
