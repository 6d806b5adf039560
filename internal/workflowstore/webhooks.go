package workflowstore

import (
	"context"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/earmark-dev/earmark/internal/webhook"
	"github.com/earmark-dev/earmark/workflows"
)

// Deliver makes the workflow of an endpoint deliver the events that wait, and starts it if none is open.
func (s *Store) Deliver(ctx context.Context, claim webhook.Claim) error {
	options := client.StartWorkflowOptions{
		ID:                    s.Prefix.WebhookWorkflowID(claim.ID),
		TaskQueue:             s.Prefix.WebhookQueue(),
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		StaticSummary:         "delivers events to a webhook",
	}
	if !s.Unindexed {
		options.Priority.FairnessKey = claim.Tenant
		options.TypedSearchAttributes = temporal.NewSearchAttributes(workflows.AttributeTenant.ValueSet(claim.Tenant))
	}
	_, err := s.Client.SignalWithStartWorkflow(ctx, options.ID, workflows.SignalDeliver, nil, options, workflows.WebhookType, workflows.WebhookInput{ID: claim.ID})
	return err
}
