package lifecycle

import "time"

// DefaultDeadline is the longest time that a caller waits for a decision.
const DefaultDeadline = 2 * time.Second

// Limits of the settle window, which begins with the start of the workflow.
const (
	// DefaultSettleWindow suits short requests. It is below DefaultDeadline, because a call
	// that waits for the workflow's decision gets it only after the window.
	DefaultSettleWindow = 1500 * time.Millisecond
	// MaxSettleWindow is well below 80 % of a workflow task's time-out, at which the SDK
	// begins a new task.
	MaxSettleWindow = 2500 * time.Millisecond
)

// Limits of an admission.
const (
	// handoffTimeout is how long the coordinator waits for the decision in this process
	// before it asks the workflow, whose first task may run in another process.
	handoffTimeout = 100 * time.Millisecond
	// Bounds of the admissions at once in this process, see places. More would not be decided
	// sooner, and would delay the settlements. At 30 ms each, 32 make 1,000 a second.
	minAdmissions, firstAdmissions, maxAdmissions = 4, 8, 32
	// If fewer than fewWait of the running admissions seem to wait for each other, there is room
	// for more; if more than manyWait do, there are too many.
	fewWait, manyWait = 2, 4
	// slowByChance is how much longer than the fastest an admission takes that waits for no other.
	slowByChance = 1.5
	// fastestSpan is how long the fastest admission is remembered, or up to twice as long.
	fastestSpan = time.Minute
	// maxAttempts bounds the attempts of one admission that find a workflow of an earlier
	// call whose deadline has passed.
	maxAttempts = 3
	// attemptPause is the pause between two attempts, and between two updates to a workflow
	// whose task has failed and will soon run again.
	attemptPause = 100 * time.Millisecond
	// retryPause is the Retry-After of an unknown or failed call.
	retryPause = time.Second
)

// Limits of a settlement.
const (
	// ledgerTimeout bounds the ledger's call, so that time remains to send the settlement
	// to Temporal.
	ledgerTimeout = 1500 * time.Millisecond
	// settleTimeout bounds a whole settlement, which continues after its caller has left.
	settleTimeout = 5 * time.Second
	// maxNotifying bounds the notifications of settlements at once. It is small, so that
	// many settlements in a moment hardly delay the admissions.
	maxNotifying = 8
	// maxUnnotified bounds the workflows that wait for a notification. Above half of it, at
	// most maxNotifying admissions run at once, so that the notifications do not fall
	// further behind; above it the reconciler notifies.
	maxUnnotified = 1024
	// notifyTimeout bounds a notification including the wait for its turn, signalTimeout
	// the call alone.
	notifyTimeout = 30 * time.Second
	signalTimeout = 5 * time.Second
	// closeTimeout is how long a stopping process still notifies workflows.
	closeTimeout = 5 * time.Second
)
