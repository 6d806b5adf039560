package workflows

import (
	"slices"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
)

// message is one signal or update that requests a transition.
type message struct {
	name   string
	signal bool // a signal: nobody waits for the answer
	apply  func(workflow.Context) activities.Snapshot
	answer activities.Snapshot
	done   bool
}

// inbox keeps messages in order until the workflow applies them one by one.
type inbox struct {
	messages []*message
	signals  []signal
}

// signal is a signal channel and a function that reads one message from it.
type signal struct {
	channel workflow.ReceiveChannel
	read    func() (m *message, received bool) // m is nil if the payload is refused
}

func (i *inbox) empty() bool { return len(i.messages) == 0 }

// next returns the oldest message, but a commit before any other: after a release, a
// reservation accepts no usage.
func (i *inbox) next() *message {
	first := max(0, slices.IndexFunc(i.messages, func(m *message) bool { return m.name == MessageCommit })) // mutation: commit-first
	m := i.messages[first]
	i.messages = slices.Delete(i.messages, first, first+1)
	return m
}

// waiting reports whether any message has arrived, including signals that collect has not
// read yet.
func (i *inbox) waiting() bool {
	for _, s := range i.signals {
		if s.channel.Len() > 0 {
			return true
		}
	}
	return !i.empty()
}

// holdsRelease reports whether a release by the caller has arrived, and no commit.
func (i *inbox) holdsRelease() bool {
	named := func(name string) bool {
		return slices.ContainsFunc(i.messages, func(m *message) bool { return m.name == name })
	}
	return named(MessageRelease) && !named(MessageCommit)
}

// collect moves arrived messages from the signal channels to the inbox.
func (i *inbox) collect() {
	for _, s := range i.signals {
		for {
			m, received := s.read()
			if !received {
				break
			}
			if m != nil {
				i.messages = append(i.messages, m)
			}
		}
	}
}

// setup registers the handlers of signals, updates and queries.
func (r *reservation) setup(ctx workflow.Context) error {
	r.inbox.signals = []signal{
		listen(ctx, MessageCommit, CommitMessage.Validate, r.onCommit),
		listen(ctx, MessageRelease, ReleaseMessage.Validate, r.onRelease),
		listen(ctx, SignalExtend, ExtendMessage.Validate, r.onExtend),
		listen(ctx, SignalRefresh, func(any) error { return nil }, func(any) *message { return &message{name: SignalRefresh, apply: r.inspect} }),
	}
	if err := workflow.SetQueryHandlerWithOptions(ctx, QueryReservation, func() (QueryResult, error) { return r.queryResult(), nil },
		workflow.QueryHandlerOptions{Description: "The reservation's state, as the workflow knows it."}); err != nil {
		return err
	}
	if err := workflow.SetUpdateHandlerWithOptions(ctx, UpdateAdmission, r.answerAdmission,
		workflow.UpdateHandlerOptions{Description: "Waits for the decision on the admission and answers it."}); err != nil {
		return err
	}
	if err := handleUpdate(ctx, r, MessageCommit, "Charges the usage and gives the rest back.", CommitMessage.Validate, r.onCommit); err != nil {
		return err
	}
	return handleUpdate(ctx, r, MessageRelease, "Gives everything back: nothing was spent.", ReleaseMessage.Validate, r.onRelease)
}

// listen reads the payloads of a signal. It drops a payload that does not decode or breaks
// a rule, and logs it. It receives the raw payload: if one decodes only in part, the SDK
// decodes the next one over the rest of it.
func listen[T any](ctx workflow.Context, name string, validate func(T) error, accept func(T) *message) signal {
	channel := workflow.GetSignalChannel(ctx, name)
	return signal{channel: channel, read: func() (*message, bool) {
		var raw converter.RawValue
		if !channel.ReceiveAsync(&raw) {
			return nil, false
		}
		var payload T
		err := decode(raw, &payload)
		if err == nil {
			err = validate(payload)
		}
		if err != nil {
			workflow.GetLogger(ctx).Warn("A signal was refused.", "signal", name, "error", err)
			return nil, true
		}
		m := accept(payload)
		m.signal = true
		return m, true
	}}
}

// decode reads a payload; an empty payload leaves target unchanged.
func decode(raw converter.RawValue, target any) error {
	if raw.Payload() == nil {
		return nil
	}
	return converter.GetDefaultDataConverter().FromPayload(raw.Payload(), target)
}

// handleUpdate registers an update that requests a transition and returns the ledger's
// answer. Its validator refuses a bad payload before Temporal writes anything to the
// history.
func handleUpdate[T any](ctx workflow.Context, r *reservation, name, description string, validate func(T) error, accept func(T) *message) error {
	handler := func(ctx workflow.Context, payload T) (activities.Snapshot, error) {
		m := accept(payload)
		r.inbox.messages = append(r.inbox.messages, m)
		err := workflow.Await(detached(ctx), func() bool { return m.done })
		return m.answer, err
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, name, handler, workflow.UpdateHandlerOptions{
		Description: description,
		Validator:   validate,
	})
}

// handle makes the transition that a message requests, and answers it.
func (r *reservation) handle(ctx workflow.Context, m *message) {
	m.answer = m.apply(ctx)
	m.done = true
	if m.signal && m.name != SignalRefresh && m.answer.Outcome != earmark.OutcomeApplied && m.answer.Outcome != earmark.OutcomeSame {
		workflow.GetLogger(ctx).Warn("A signal changed nothing.", "signal", m.name, "outcome", m.answer.Outcome, "subject", m.answer.Subject,
			"reservation_id", r.Admission.ID, "tenant", r.Admission.Tenant)
	}
}

func (r *reservation) onCommit(payload CommitMessage) *message {
	return &message{name: MessageCommit, apply: func(ctx workflow.Context) activities.Snapshot {
		settlement := r.settlementBy(payload.Operator, payload.Key, payload.Reason)
		settlement.Attempt, settlement.Estimated, settlement.Response = payload.Attempt, payload.Estimated, payload.Response
		return r.commit(ctx, settlement, payload.Usage)
	}}
}

func (r *reservation) onRelease(payload ReleaseMessage) *message {
	return &message{name: MessageRelease, apply: func(ctx workflow.Context) activities.Snapshot {
		settlement := r.settlementBy(payload.Operator, payload.Key, payload.Reason)
		if payload.Operator != "" {
			return r.giveBack(ctx, settlement)
		}
		return r.release(ctx, settlement)
	}}
}

func (r *reservation) onExtend(payload ExtendMessage) *message {
	return &message{name: SignalExtend, apply: func(ctx workflow.Context) activities.Snapshot {
		return r.extend(ctx, r.settlementBy(payload.Operator, "", payload.Reason), payload.TTLSeconds)
	}}
}

// settlementBy returns who sent a message and why: an operator, or else the caller, for
// whom the workflow acts.
func (r *reservation) settlementBy(operator, key, reason string) earmark.Transition {
	settlement := r.settlement(reason)
	if operator != "" {
		settlement.Actor = earmark.OperatorActor(operator)
	}
	settlement.Actor = settlement.Actor.WithKey(key)
	return settlement
}

// answerAdmission waits for the decision. A sender with another request under the same id
// gets a mismatch, not the decision on the other request.
func (r *reservation) answerAdmission(ctx workflow.Context, payload AdmissionMessage) (activities.Snapshot, error) {
	if payload.RequestHash != r.Admission.RequestHash {
		return activities.Snapshot{Outcome: earmark.OutcomeMismatch}, nil
	}
	err := workflow.Await(detached(ctx), func() bool { return r.decided })
	return r.admission, err
}

func (r *reservation) queryResult() QueryResult {
	request := r.Admission.Request
	return QueryResult{ReservationID: r.Admission.ID, Scopes: request.Scopes, Amounts: request.Amounts, OnExpiry: request.OnExpiry,
		Snapshot: r.snapshot, Pending: len(r.inbox.messages)}
}
