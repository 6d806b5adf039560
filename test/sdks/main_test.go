//go:build unix

// Package sdks_test makes guarded calls with the SDKs of providers, to a fake provider, on a
// real Earmark.
package sdks_test

import (
	"os"
	"testing"

	"github.com/earmark-dev/earmark/internal/stack"
)

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }
