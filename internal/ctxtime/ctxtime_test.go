package ctxtime_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/ctxtime"
)

func TestSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		require.True(t, ctxtime.Sleep(t.Context(), time.Hour))
		require.Equal(t, time.Hour, time.Since(begun))

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.False(t, ctxtime.Sleep(ctx, time.Hour))
		require.Equal(t, time.Hour+time.Minute, time.Since(begun))
		require.False(t, ctxtime.Sleep(ctx, 0), "the context has ended")
	})
}
