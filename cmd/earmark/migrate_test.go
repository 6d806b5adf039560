//go:build unix

package main

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
)

func TestRefusedAttributesSayWhoCan(t *testing.T) {
	t.Parallel()
	err := attributesRefused("prod", serviceerror.NewPermissionDenied("no", ""))
	require.ErrorContains(t, err, "this account may not register search attributes in namespace prod (no)")
	require.ErrorContains(t, err, "\n  temporal operator search-attribute create --namespace prod --name EarmarkScope --type KeywordList")
	require.ErrorContains(t, err, "--without-search-attributes")
	err = attributesRefused("prod", errors.New("away"))
	require.NotContains(t, err.Error(), "\n")
	require.ErrorContains(t, err, "away")
}
