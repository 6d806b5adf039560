package workflowstore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/earmark-dev/earmark/internal/ctxtime"
	"github.com/earmark-dev/earmark/workflows"
)

// searchablePause is the pause between two checks whether Temporal accepts a new search
// attribute.
const searchablePause = 100 * time.Millisecond

// SearchAttributes returns the names and types that a namespace needs.
func SearchAttributes() map[string]enumspb.IndexedValueType {
	types := make(map[string]enumspb.IndexedValueType)
	types[workflows.AttributeTenant.GetName()] = workflows.AttributeTenant.GetValueType()
	types[workflows.AttributeScope.GetName()] = workflows.AttributeScope.GetValueType()
	types[workflows.AttributeExpiresAt.GetName()] = workflows.AttributeExpiresAt.GetValueType()
	types[workflows.AttributeState.GetName()] = workflows.AttributeState.GetValueType()
	return types
}

// MissingSearchAttributes returns those that the namespace does not have, sorted.
func MissingSearchAttributes(ctx context.Context, c client.Client, namespace string) ([]string, error) {
	listed, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return nil, err
	}
	var missing []string
	for name, kind := range SearchAttributes() {
		if listed.GetCustomAttributes()[name] != kind {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	return missing, nil
}

// AddSearchAttributes registers the missing ones, waits until Temporal accepts them, and
// returns their names. If it returns names and an error, they are registered, and the wait
// has failed.
func AddSearchAttributes(ctx context.Context, c client.Client, namespace string) ([]string, error) {
	missing, err := MissingSearchAttributes(ctx, c, namespace)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	request := &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: map[string]enumspb.IndexedValueType{}}
	for _, name := range missing {
		request.SearchAttributes[name] = SearchAttributes()[name]
	}
	if _, err := c.OperatorService().AddSearchAttributes(ctx, request); err != nil {
		return nil, err
	}
	return missing, awaitSearchable(ctx, c, namespace, missing)
}

// awaitSearchable waits until Temporal accepts a search for the attributes. Its servers
// learn of registered attributes a moment later, and refuse workflows with them until then.
func awaitSearchable(ctx context.Context, c client.Client, namespace string, names []string) error {
	request := &workflowservice.CountWorkflowExecutionsRequest{Namespace: namespace, Query: strings.Join(names, " IS NULL AND ") + " IS NULL"}
	for {
		_, err := c.CountWorkflow(ctx, request)
		var unknown *serviceerror.InvalidArgument
		if !errors.As(err, &unknown) {
			return err
		}
		if !ctxtime.Sleep(ctx, searchablePause) {
			return err
		}
	}
}
