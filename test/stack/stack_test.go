//go:build unix

package stack_test

import (
	"os"
	"testing"

	"github.com/earmark-dev/earmark/test/stack"
)

func TestMain(m *testing.M) { os.Exit(stack.Main(m)) }

func TestTimings(t *testing.T) {
	s := stack.New(t, stack.Options{})
	_ = s
}
