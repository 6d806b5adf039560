package lifecycle

import (
	"context"
	"fmt"
	"sync"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/earmark-dev/earmark"
)

// Limits of the check for a polling worker. Temporal lists a worker for five minutes after
// its last poll, and records only the start of a poll.
const (
	// maxPollAge is the maximum time since the newest poll began: a poll waits in Temporal
	// for a minute, and the worker then polls again.
	maxPollAge = 90 * time.Second
	// maxTaskAge is how long a task may wait while no new poll begins. A living worker
	// either waits in a poll, and would have got the task, or begins one.
	maxTaskAge = 3 * time.Second
	// workersTimeout bounds the check after an undecided admission, because its caller
	// waits.
	workersTimeout = 200 * time.Millisecond
)

// WorkersReady returns nil if a worker, in this process or another one, polls the task
// queue for workflow tasks. The error is CodeUnavailable and says what to start.
func (c *Coordinator) WorkersReady(ctx context.Context) error {
	missing, err := c.missingWorker(ctx)
	switch {
	case err != nil:
		return earmark.Errorf(earmark.CodeUnavailable, "Temporal does not list the workers: %w", err)
	case missing != "":
		return earmark.Errorf(earmark.CodeUnavailable, "%s", missing)
	}
	return nil
}

// missingWorker returns "" if a worker polls, and otherwise says so and what to start.
func (c *Coordinator) missingWorker(ctx context.Context) (string, error) {
	queue, err := c.Client.WorkflowService().DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{
		Namespace: c.Namespace, TaskQueue: &taskqueuepb.TaskQueue{Name: c.Prefix.TaskQueue()},
		TaskQueueType: enumspb.TASK_QUEUE_TYPE_WORKFLOW, ReportStats: true,
	})
	if err != nil {
		return "", err
	}
	waiting := queue.GetStats().GetApproximateBacklogAge().AsDuration()
	if c.Handoff != nil { // the first task of an admission here comes with the start of its workflow
		waiting = 0
	}
	since, polled := c.polls.look(time.Now(), queue.GetPollers(), waiting)
	if polled {
		return "", nil
	}
	return fmt.Sprintf("no worker polls the task queue %s in the namespace %s%s; start `earmark worker`, or `earmark serve` without --without-worker",
		c.Prefix.TaskQueue(), c.Namespace, since), nil
}

// polls stores the newest poll of the task queue that Temporal has listed.
type polls struct {
	mu     sync.Mutex
	newest time.Time // by Temporal's clock, compared only with itself
	since  time.Time // when this process first saw it
}

// look reports whether a worker polls; if not, it says since when, as the end of a
// sentence. waiting is how long a task has waited.
func (p *polls) look(now time.Time, pollers []*taskqueuepb.PollerInfo, waiting time.Duration) (since string, polled bool) {
	if len(pollers) == 0 {
		return "", false
	}
	var newest time.Time
	for _, poller := range pollers {
		if at := poller.GetLastAccessTime().AsTime(); at.After(newest) {
			newest = at
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !newest.Equal(p.newest) {
		p.newest, p.since = newest, now
	}
	age := now.Sub(p.since)
	if age > maxPollAge || waiting > maxTaskAge && age > maxTaskAge {
		return fmt.Sprintf(" (the last poll began %s ago or earlier)", age.Truncate(time.Second)), false
	}
	return "", true
}
