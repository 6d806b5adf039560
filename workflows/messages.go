package workflows

import (
	"slices"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/activities"
)

// message is one signal or update that asks for a transition.
type message struct {
	name   string
	signal bool // nobody waits for the answer
	apply  func(workflow.Context) activities.Snapshot
	answer activities.Snapshot
	done   bool
}

// inbox keeps messages in order until the workflow applies them, one at a time.
type inbox struct {
	messages []*message
	signals  []signal
}

// signal is a channel of the contract and how to read one message off it.
type signal struct {
	channel workflow.ReceiveChannel
	read    func() (m *message, received bool) // m is nil when the payload is refused
}

func (i *inbox) empty() bool { return len(i.messages) == 0 }

// next takes the oldest message, but a commit before any other: once it is
// released, a reservation takes no usage any more.
func (i *inbox) next() *message {
	first := max(0, slices.IndexFunc(i.messages, func(m *message) bool { return m.name == MessageCommit })) // mutation: commit-first
	m := i.messages[first]
	i.messages = slices.Delete(i.messages, first, first+1)
	return m
}

// waiting reports whether anything has arrived, signals not yet collected included.
func (i *inbox) waiting() bool {
	for _, s := range i.signals {
		if s.channel.Len() > 0 {
			return true
		}
	}
	return !i.empty()
}

// holdsRelease reports whether the caller has released already, and not committed.
func (i *inbox) holdsRelease() bool {
	named := func(name string) bool {
		return slices.ContainsFunc(i.messages, func(m *message) bool { return m.name == name })
	}
	return named(MessageRelease) && !named(MessageCommit)
}

// collect takes what has arrived off the signal channels.
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

// setup registers everything that can be asked of the workflow.
func (r *reservation) setup(ctx workflow.Context) error {
	r.inbox.signals = []signal{
		listen(ctx, MessageCommit, CommitMessage.Validate, r.onCommit),
		listen(ctx, MessageRelease, ReleaseMessage.Validate, r.onRelease),
		listen(ctx, SignalExtend, ExtendMessage.Validate, r.onExtend),
		listen(ctx, SignalRefresh, func(any) error { return nil }, func(any) *message { return &message{name: SignalRefresh, apply: r.inspect} }),
	}
	if err := workflow.SetQueryHandlerWithOptions(ctx, QueryReservation, func() (QueryResult, error) { return r.queryResult(), nil },
		workflow.QueryHandlerOptions{Description: "Where the reservation stands, as the workflow knows it."}); err != nil {
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

// listen reads a signal's payloads. One that does not decode or breaks a rule is
// dropped with a trace. It is received as it is: the SDK would decode the next one
// into what is left of one that broke half-way.
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

// decode reads a payload; none at all leaves target as it is.
func decode(raw converter.RawValue, target any) error {
	if raw.Payload() == nil {
		return nil
	}
	return converter.GetDefaultDataConverter().FromPayload(raw.Payload(), target)
}

// handleUpdate lets an update ask for a transition and answers with the ledger's answer.
// Its validator refuses a bad payload before anything is written to the history.
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

// handle makes the transition that a message asks for, and answers it.
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
		settlement := r.settlementBy(payload.Operator, payload.Reason)
		settlement.Attempt = payload.Attempt
		return r.commit(ctx, settlement, payload.Usage)
	}}
}

func (r *reservation) onRelease(payload ReleaseMessage) *message {
	return &message{name: MessageRelease, apply: func(ctx workflow.Context) activities.Snapshot {
		if payload.Operator != "" {
			return r.giveBack(ctx, r.settlementBy(payload.Operator, payload.Reason))
		}
		return r.release(ctx, payload.Reason)
	}}
}

func (r *reservation) onExtend(payload ExtendMessage) *message {
	return &message{name: SignalExtend, apply: func(ctx workflow.Context) activities.Snapshot {
		return r.extend(ctx, r.settlementBy(payload.Operator, payload.Reason), payload.TTLSeconds)
	}}
}

// settlementBy names who sent a message, and why: a person, or else the caller,
// for whom the workflow acts.
func (r *reservation) settlementBy(operator, reason string) earmark.Transition {
	settlement := r.settlement(reason)
	if operator != "" {
		settlement.Actor = earmark.OperatorActor(operator)
	}
	return settlement
}

// answerAdmission waits for the decision. Whoever asks with another request under
// the same id learns that, and not the decision on somebody else's.
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
