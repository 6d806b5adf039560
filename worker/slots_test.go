package worker

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/worker"
)

// released is what the SDK says of a slot that it gives back.
type released struct {
	worker.SlotReleaseInfo
	permit *worker.SlotPermit
}

func (r released) Permit() *worker.SlotPermit { return r.permit }

func TestTasksThatArePolledLeaveRoomForEagerOnes(t *testing.T) {
	t.Parallel()
	tuner, err := newTuner()
	require.NoError(t, err)
	slots := tuner.GetWorkflowTaskSlotSupplier()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	polled := make([]*worker.SlotPermit, polledTasks)
	for i := range polled {
		polled[i], err = slots.ReserveSlot(t.Context(), nil)
		require.NoError(t, err)
	}
	_, err = slots.ReserveSlot(over, nil)
	require.Error(t, err, "one more than the bound")

	eager := make([]*worker.SlotPermit, eagerTasks)
	for i := range eager {
		eager[i] = slots.TryReserveSlot(nil)
		require.NotNil(t, eager[i])
	}
	require.Nil(t, slots.TryReserveSlot(nil), "one more than the bound")
	require.Equal(t, polledTasks+eagerTasks, slots.MaxSlots())

	slots.ReleaseSlot(released{permit: eager[0]})
	_, err = slots.ReserveSlot(over, nil)
	require.Error(t, err, "an eager task's slot is for eager tasks")
	require.NotNil(t, slots.TryReserveSlot(nil))
	slots.ReleaseSlot(released{permit: polled[0]})
	require.Nil(t, slots.TryReserveSlot(nil), "a polled task's slot is for polled tasks")
	_, err = slots.ReserveSlot(t.Context(), nil)
	require.NoError(t, err)
}
