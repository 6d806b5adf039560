package workflows

import (
	"context"
	"slices"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"
)

// SearchAttributes returns the names and types that a namespace needs.
func SearchAttributes() map[string]enumspb.IndexedValueType {
	types := make(map[string]enumspb.IndexedValueType)
	types[AttributeTenant.GetName()] = AttributeTenant.GetValueType()
	types[AttributeScope.GetName()] = AttributeScope.GetValueType()
	types[AttributeExpiresAt.GetName()] = AttributeExpiresAt.GetValueType()
	types[AttributeState.GetName()] = AttributeState.GetValueType()
	return types
}

// MissingSearchAttributes lists those that the namespace does not have, sorted.
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

// AddSearchAttributes registers what is missing and returns its names.
func AddSearchAttributes(ctx context.Context, c client.Client, namespace string) ([]string, error) {
	missing, err := MissingSearchAttributes(ctx, c, namespace)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	request := &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: map[string]enumspb.IndexedValueType{}}
	for _, name := range missing {
		request.SearchAttributes[name] = SearchAttributes()[name]
	}
	_, err = c.OperatorService().AddSearchAttributes(ctx, request)
	return missing, err
}
