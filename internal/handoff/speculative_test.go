package handoff

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// A call continues without its caller, and its result is not kept for ever.
func TestSpeculationIsBounded(t *testing.T) {
	t.Parallel()
	var x Exchange
	ctx, leave := context.WithCancel(t.Context())
	leave()
	var deadline bool
	speculation := x.Speculate(ctx, func(ctx context.Context, _ earmark.Admission) (earmark.Result, error) {
		_, deadline = ctx.Deadline()
		return earmark.Result{}, ctx.Err()
	}, earmark.Admission{ID: "one", RequestHash: "h", AdmitBy: time.Unix(1, 0)})
	<-speculation.Done()
	_, err := speculation.Result()
	require.NoError(t, err)
	require.True(t, deadline)
	require.Eventually(t, func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return len(x.speculations) == 0
	}, 2*speculationKept, 10*time.Millisecond)
}
