package worker

import (
	"fmt"

	"go.temporal.io/sdk/worker"
)

// Bounds of the tasks that run at once in a process.
const (
	// polledTasks are workflow tasks that a poller took, or waits for. Temporal gives a task 10 s. It writes the results of
	// one shard one after the other, and each waits at most 5 s: when thousands of leases end together, more tasks at
	// once would time one another out, and hardly any would be done.
	polledTasks = workflowPollers + 32
	// eagerTasks are the first tasks of workflows that this process has started. They are not behind the polled
	// ones. They are above the open settle windows and the admissions at once.
	eagerTasks    = 512
	activityTasks = 100
)

// taskSlots gives the workflow tasks of pollers and those of eager starts slots of their own.
type taskSlots struct {
	worker.SlotSupplier // of the pollers
	eager               worker.SlotSupplier
}

// eagerTask marks the permit of an eager task.
type eagerTask struct{}

// TryReserveSlot is called for eager starts alone.
func (s *taskSlots) TryReserveSlot(info worker.SlotReservationInfo) *worker.SlotPermit {
	permit := s.eager.TryReserveSlot(info)
	if permit != nil {
		permit.UserData = eagerTask{}
	}
	return permit
}

// ReleaseSlot gives a slot back to where it is from.
func (s *taskSlots) ReleaseSlot(info worker.SlotReleaseInfo) {
	if info.Permit().UserData == (eagerTask{}) {
		s.eager.ReleaseSlot(info)
		return
	}
	s.SlotSupplier.ReleaseSlot(info)
}

// MaxSlots is how many tasks can run at once.
func (s *taskSlots) MaxSlots() int { return s.SlotSupplier.MaxSlots() + s.eager.MaxSlots() }

// newTuner bounds the tasks of a worker by the constants above.
func newTuner() (worker.WorkerTuner, error) {
	var options worker.CompositeTunerOptions
	slots := &taskSlots{}
	for _, kind := range []struct {
		supplier *worker.SlotSupplier
		slots    int
	}{
		{&slots.SlotSupplier, polledTasks},
		{&slots.eager, eagerTasks},
		{&options.ActivitySlotSupplier, activityTasks},
		{&options.LocalActivitySlotSupplier, maxLocalAtOnce},
		{&options.NexusSlotSupplier, 1},
		{&options.SessionActivitySlotSupplier, 1},
	} {
		supplier, err := worker.NewFixedSizeSlotSupplier(kind.slots)
		if err != nil {
			return nil, fmt.Errorf("bound the tasks of the worker: %w", err)
		}
		*kind.supplier = supplier
	}
	options.WorkflowSlotSupplier = slots
	return worker.NewCompositeTuner(options)
}
