package lifecycle

import "time"

// DefaultDeadline is how long a caller waits for a decision at most.
const DefaultDeadline = 2 * time.Second

// Limits of an admission.
const (
	// handoffTimeout is how long the coordinator waits for the decision in this process
	// before it queries the workflow, whose first task may run in another one.
	handoffTimeout = 100 * time.Millisecond
	// maxAdmissions bounds the admissions under way in this process. More would not be
	// decided sooner, and would hold up the settlements, which have no bound: at 30 ms
	// each this is 1,000 a second.
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
	// updateTimeout is how long the workflow may take before the coordinator applies the
	// settlement to the ledger directly.
	updateTimeout = time.Second
	// ledgerTimeout is how long the ledger may take, so that time is left to hand the
	// settlement to Temporal.
	ledgerTimeout = 1500 * time.Millisecond
	// settleTimeout bounds a whole settlement, which continues when its caller leaves.
	settleTimeout = 5 * time.Second
	// maxUnawaitedUpdates bounds the updates that continue in Temporal after their
	// callers have their answer. Past it callers wait for the update, and so send fewer.
	maxUnawaitedUpdates = 256
	// notifyTimeout is short: the workflow's timer or the reconciler finds out as well.
	notifyTimeout = 2 * time.Second
)
