//go:build unix

// Package guarded_test makes guarded calls of models that end in every way, to a fake
// provider, on a real Earmark.
package guarded_test

import (
	"os"
	"testing"

	"github.com/earmark-dev/earmark/internal/stack"
)

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }
