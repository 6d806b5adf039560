package earmark_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

func TestVisibleText(t *testing.T) {
	t.Parallel()
	require.Equal(t, "a\ufffdb\ufffdc\ufffdd\ufffde", earmark.VisibleText("a\u202eb\u009bc\x1bd\ne"))
	require.Equal(t, "日本語 é 😀", earmark.VisibleText("日本語 é 😀"))
}
