package lifecycle

import "time"

// DefaultDeadline is how long a caller waits for a decision at most.
const DefaultDeadline = 2 * time.Second

// Limits of the settle window, which begins with the start of the workflow.
const (
	// DefaultSettleWindow suits short requests. It is below DefaultDeadline: a call that asks the
	// workflow for its decision is answered when the window is over.
	DefaultSettleWindow = 1500 * time.Millisecond
	// MaxSettleWindow is well below 80 % of a workflow task's time-out, past which the SDK
	// begins a new task.
	MaxSettleWindow = 2500 * time.Millisecond
)

// Limits of an admission.
const (
	// handoffTimeout is how long the coordinator waits for the decision in this process
	// before it queries the workflow, whose first task may run in another one.
	handoffTimeout = 100 * time.Millisecond
	// maxAdmissions bounds the admissions under way in this process. More would not be
	// decided sooner, and would hold up the settlements: at 30 ms each this is 1,000 a second.
	maxAdmissions = 32
	// maxAttempts bounds the attempts at one admission that meet a workflow whose
	// deadline, of an earlier call, is over.
	maxAttempts = 3
	// attemptPause separates two attempts, and two queries to a workflow whose task has
	// failed and is about to run again.
	attemptPause = 100 * time.Millisecond
	// retryPause is the wait that a caller is asked for after an unknown or failed call.
	retryPause = time.Second
)

// Limits of a settlement.
const (
	// ledgerTimeout is how long the ledger may take, so that time is left to hand the
	// settlement to Temporal.
	ledgerTimeout = 1500 * time.Millisecond
	// settleTimeout bounds a whole settlement, which continues when its caller leaves.
	settleTimeout = 5 * time.Second
	// maxNotifying bounds the workflows that are being notified of a settlement at once. It is small, so that
	// many settlements in a moment hardly delay the admissions.
	maxNotifying = 8
	// maxUnnotified bounds those that wait for it. From half of that on only as many admissions are under
	// way as notifications, so that they do not fall further behind; past it the reconciler notifies.
	maxUnnotified = 1024
	// notifyTimeout bounds a notification with the wait for its turn, and signalTimeout without.
	notifyTimeout = 30 * time.Second
	signalTimeout = 5 * time.Second
	// closeTimeout is how long a process that stops still notifies workflows.
	closeTimeout = 5 * time.Second
)
