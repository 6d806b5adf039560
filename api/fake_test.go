package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/internal/webhook"
	"github.com/earmark-dev/earmark/pricing"
)

// fake is a Ledger and a Coordinator that answers as a test configures it and records
// what it was asked.
type fake struct {
	mu    sync.Mutex
	calls []call

	counted        earmark.Counted
	preflight      earmark.Preflight
	result         earmark.Result // of everything else that has one
	accepted       bool
	reservation    *earmark.Reservation
	overview       earmark.Overview
	report         *earmark.UsageReport
	reservations   earmark.Page[earmark.Reservation]
	budget         *earmark.Budget
	budgets        earmark.Page[earmark.Budget]
	windows        earmark.Page[earmark.Balance]
	entries        earmark.Page[earmark.Entry]
	suspects       []string
	known          []string
	knownErr       error
	guarded        bool
	settlement     earmark.Transition             // of the last commit, release or extend
	credentials    map[string]*earmark.Credential // by key id
	signIns        map[[sha256.Size]byte]string   // the key id of each, by the hash of the cookie
	credentialErr  error
	lookups        []string // ids that Credential was asked for
	marked         []string // ids that MarkKeysUsed was given
	markErr        error
	signInErr      error         // of CreateSignIn and EndSignIn
	hang           bool          // Credential answers when its context ends
	hanging        atomic.Int64  // calls of Credential under way
	tenants        []string      // whom the calls were for, in their order
	owner          string        // tenant that has what the fake has; empty: every tenant
	by             earmark.Actor // of the last change of a budget or a key
	reason         string
	issued         *earmark.IssuedKey
	keys           earmark.Page[earmark.Key]
	audit          earmark.Page[earmark.AuditRecord]
	events         []earmark.EventPage // one after the other
	target         *webhook.Target     // of the webhook
	denials        [][]earmark.Denials // what CountDenials was given
	denialsDue     time.Duration
	denialsErr     error
	err            error
	coordinatorErr error

	postgresReady func(context.Context) error
	temporalReady func(context.Context) error
	workersReady  func(context.Context) error
	panics        any
	gates         map[string]chan struct{} // a call of this name waits until its gate is closed
}

// call is one call of a fake: its name and its main argument.
type call struct {
	name string
	arg  any
}

// stuckCall is what Stuck was asked.
type stuckCall struct {
	filter   earmark.ReservationFilter
	reported earmark.StuckIDs
}

func (f *fake) record(name string, arg any) {
	f.mu.Lock()
	f.calls = append(f.calls, call{name, arg})
	f.mu.Unlock()
	if f.panics != nil {
		panic(f.panics)
	}
	if gate := f.gates[name]; gate != nil {
		<-gate
	}
}

// set changes what the fake remembers; calls may come at once.
func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// of notes whom a call is for, and reports whether they have what the fake has.
func (f *fake) of(tenant string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tenants = append(f.tenants, tenant)
	return f.owner == "" || f.owner == tenant
}

// count is how often the call was made.
func (f *fake) count(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c.name == name {
			n++
		}
	}
	return n
}

func (f *fake) names() []string {
	names := []string{}
	for _, c := range f.calls {
		names = append(names, c.name)
	}
	return names
}

func (f *fake) last() any {
	return f.calls[len(f.calls)-1].arg
}

func (f *fake) Credential(ctx context.Context, id string) (*earmark.Credential, error) {
	f.hanging.Add(1)
	defer f.hanging.Add(-1)
	if f.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lookups = append(f.lookups, id)
	switch found := f.credentials[id]; {
	case f.credentialErr != nil:
		return nil, f.credentialErr
	case found == nil:
		return nil, earmark.Errorf(earmark.CodeNotFound, "there is no key with the id %q", id)
	default:
		read := *found
		return &read, nil
	}
}

func (f *fake) CreateSignIn(_ context.Context, hash [sha256.Size]byte, keyID string, lasts time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.signIns == nil {
		f.signIns = map[[sha256.Size]byte]string{}
	}
	f.signIns[hash] = keyID
	time.AfterFunc(lasts, func() { _ = f.EndSignIn(context.Background(), hash) })
	return f.signInErr
}

func (f *fake) SignIn(ctx context.Context, hash [sha256.Size]byte) (*earmark.Credential, error) {
	f.mu.Lock()
	id := f.signIns[hash]
	f.mu.Unlock()
	return f.Credential(ctx, id)
}

func (f *fake) EndSignIn(_ context.Context, hash [sha256.Size]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.signInErr == nil {
		delete(f.signIns, hash)
	}
	return f.signInErr
}

func (f *fake) MarkKeysUsed(_ context.Context, ids []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.marked = append(f.marked, ids...)
	return f.markErr
}

func (f *fake) Keys(_ context.Context, tenant string, filter earmark.KeyFilter) (earmark.Page[earmark.Key], error) {
	f.record("Keys", filter)
	f.of(tenant)
	return f.keys, f.err
}

func (f *fake) CreateKey(_ context.Context, tenant string, request earmark.KeyRequest, by earmark.Actor, reason string) (*earmark.IssuedKey, error) {
	f.set(func() { f.by, f.reason = by, reason })
	f.record("CreateKey", request)
	f.of(tenant)
	return f.issued, f.err
}

func (f *fake) AddOwnPrices(_ context.Context, tenant string, after int64, entries []pricing.Entry, source string, by earmark.Actor, reason string) (*prices.Version, error) {
	f.set(func() { f.by, f.reason = by, reason })
	f.record("AddOwnPrices", entries)
	f.of(tenant)
	return &prices.Version{ID: after + 1, Tenant: tenant, Source: source, Actor: by, Reason: reason, Changes: prices.Changes{Entries: entries}}, f.err
}

func (f *fake) RotateKey(_ context.Context, tenant, id string, overlap time.Duration, by earmark.Actor, reason string) (*earmark.IssuedKey, error) {
	f.set(func() { f.by, f.reason = by, reason })
	f.record("RotateKey", overlap)
	if !f.of(tenant) || !earmark.IsKeyID(id) {
		return nil, earmark.Errorf(earmark.CodeNotFound, "there is no such key")
	}
	return f.issued, f.err
}

func (f *fake) RevokeKey(_ context.Context, tenant, id string, by earmark.Actor, reason string) (*earmark.Key, error) {
	f.set(func() { f.by, f.reason = by, reason })
	f.record("RevokeKey", id)
	if !f.of(tenant) || !earmark.IsKeyID(id) {
		return nil, earmark.Errorf(earmark.CodeNotFound, "there is no such key")
	}
	return &f.issued.Key, f.err
}

func (f *fake) Events(_ context.Context, tenant string, filter earmark.EventFilter) (earmark.EventPage, error) {
	f.record("Events", filter)
	f.of(tenant)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.events) == 0 {
		return earmark.EventPage{NextAfter: "evt_9_0"}, f.err
	}
	page := f.events[0]
	f.events = f.events[1:]
	return page, f.err
}

func (f *fake) CountDenials(_ context.Context, _ string, denials []earmark.Denials) (time.Duration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.denials = append(f.denials, denials)
	return f.denialsDue, f.denialsErr
}

// counts returns what CountDenials was given.
func (f *fake) counts() [][]earmark.Denials {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.denials)
}

func (f *fake) Audit(_ context.Context, tenant string, filter earmark.AuditFilter) (earmark.Page[earmark.AuditRecord], error) {
	f.record("Audit", filter)
	f.of(tenant)
	return f.audit, f.err
}

func (f *fake) CountedUnits(_ context.Context, tenant, id, _ string, scopes []string) (earmark.Counted, error) {
	f.record("CountedUnits", scopes)
	f.of(tenant)
	if f.counted.Outcome == "" {
		f.counted.Outcome = earmark.OutcomeApplied
	}
	return f.counted, f.err
}

func (f *fake) Preflight(_ context.Context, admission earmark.Admission) (earmark.Preflight, error) {
	f.record("Preflight", admission)
	f.of(admission.Tenant)
	return f.preflight, f.err
}

func (f *fake) Decide(_ context.Context, tenant string, request earmark.ReservationRequest) (earmark.Result, error) {
	f.record("Decide", request)
	f.of(tenant)
	return f.result, f.err
}

func (f *fake) Charge(_ context.Context, charge earmark.Charge) (earmark.Result, error) {
	f.record("Charge", charge)
	f.of(charge.Tenant)
	return f.result, f.err
}

func (f *fake) Correct(_ context.Context, correction earmark.Correction) (earmark.Result, error) {
	f.record("Correct", correction)
	f.of(correction.Tenant)
	return f.result, f.err
}

func (f *fake) Reservation(_ context.Context, tenant, id string) (*earmark.Reservation, error) {
	f.record("Reservation", id)
	if !f.of(tenant) {
		return nil, nil
	}
	return f.reservation, f.err
}

func (f *fake) Reservations(_ context.Context, tenant string, filter earmark.ReservationFilter) (earmark.Page[earmark.Reservation], error) {
	f.record("Reservations", filter)
	f.of(tenant)
	return f.reservations, f.err
}

func (f *fake) Stuck(_ context.Context, tenant string, filter earmark.ReservationFilter, reported earmark.StuckIDs) (earmark.Page[earmark.Reservation], error) {
	f.record("Stuck", stuckCall{filter, reported})
	f.of(tenant)
	return f.reservations, f.err
}

func (f *fake) Suspects(context.Context, string, int) ([]string, error) { return f.suspects, f.err }

func (f *fake) Known(context.Context, string, []string) ([]string, error) {
	return f.known, cmp.Or(f.knownErr, f.err)
}

func (f *fake) Check(_ context.Context, tenant, id string) (*earmark.Check, error) {
	f.record("Check", id)
	if !f.of(tenant) || f.reservation == nil {
		return nil, f.err
	}
	return &earmark.Check{ID: id, Tenant: tenant, State: f.reservation.State, WorkflowID: f.reservation.WorkflowID}, f.err
}

func (f *fake) Adopt(_ context.Context, settlement earmark.Transition) (earmark.Result, error) {
	f.record("Adopt", settlement)
	return f.result, f.err
}

func (f *fake) MarkChecked(_ context.Context, _, id string, orphan, _ bool) error {
	f.record("MarkChecked", orphan)
	return f.err
}

func (f *fake) CreateBudget(_ context.Context, tenant string, request earmark.BudgetRequest, by earmark.Actor) (*earmark.Budget, error) {
	f.set(func() { f.by = by })
	f.record("CreateBudget", request)
	f.of(tenant)
	return f.budget, f.err
}

func (f *fake) Budget(_ context.Context, tenant, id string) (*earmark.Budget, error) {
	f.record("Budget", id)
	if !f.of(tenant) {
		return nil, nil
	}
	return f.budget, f.err
}

func (f *fake) Budgets(_ context.Context, tenant string, filter earmark.BudgetFilter) (earmark.Page[earmark.Budget], error) {
	f.record("Budgets", filter)
	f.of(tenant)
	return f.budgets, f.err
}

func (f *fake) BudgetWindows(_ context.Context, tenant, id string, filter earmark.WindowFilter) (earmark.Page[earmark.Balance], error) {
	f.record("BudgetWindows", filter)
	f.of(tenant)
	return f.windows, f.err
}

func (f *fake) PatchBudget(_ context.Context, tenant, _ string, patch earmark.BudgetPatch, by earmark.Actor) (*earmark.Budget, error) {
	f.set(func() { f.by = by })
	f.record("PatchBudget", patch)
	if !f.of(tenant) {
		return nil, nil
	}
	return f.budget, f.err
}

func (f *fake) ArchiveBudget(_ context.Context, tenant, id string, by earmark.Actor) (*earmark.Budget, error) {
	f.set(func() { f.by = by })
	f.record("ArchiveBudget", id)
	if !f.of(tenant) {
		return nil, nil
	}
	return f.budget, f.err
}

func (f *fake) CreateOverride(_ context.Context, tenant, _, key string, request earmark.OverrideRequest, by earmark.Actor) (*earmark.Override, error) {
	f.set(func() { f.by = by })
	f.record("CreateOverride", request)
	return f.overridden(tenant, key)
}

func (f *fake) ResetBudget(_ context.Context, tenant, _, key string, request earmark.ReasonRequest, by earmark.Actor) (*earmark.Override, error) {
	f.set(func() { f.by = by })
	f.record("ResetBudget", request)
	return f.overridden(tenant, key)
}

func (f *fake) EndOverride(_ context.Context, tenant, _, id string, by earmark.Actor, reason string) (*earmark.Override, error) {
	f.set(func() { f.by = by })
	f.record("EndOverride", reason)
	return f.overridden(tenant, id)
}

func (f *fake) overridden(tenant, key string) (*earmark.Override, error) {
	if !f.of(tenant) || key == "none" {
		return nil, f.err
	}
	return &earmark.Override{ID: earmark.OverrideID(testBudgetID, key), BudgetID: testBudgetID, Source: "manual", Amount: 500, Reason: "why", Replayed: key == "again"}, f.err
}

func (f *fake) Overrides(_ context.Context, tenant, _ string, filter earmark.PageFilter) (earmark.Page[earmark.Override], error) {
	f.record("Overrides", filter)
	f.of(tenant)
	return earmark.Page[earmark.Override]{Data: []earmark.Override{}}, f.err
}

func (f *fake) CreateGrant(_ context.Context, tenant, _, key string, request earmark.GrantRequest, by earmark.Actor) (*earmark.Grant, error) {
	f.set(func() { f.by = by })
	f.record("CreateGrant", request)
	return f.granted(tenant, key)
}

func (f *fake) VoidGrant(_ context.Context, tenant, _, id string, by earmark.Actor, reason string) (*earmark.Grant, error) {
	f.set(func() { f.by = by })
	f.record("VoidGrant", reason)
	return f.granted(tenant, id)
}

func (f *fake) granted(tenant, key string) (*earmark.Grant, error) {
	if !f.of(tenant) || key == "none" {
		return nil, f.err
	}
	return &earmark.Grant{Source: "manual", ID: earmark.GrantID(testBudgetID, key), BudgetID: testBudgetID, Amount: 500, Remaining: 500, Priority: 50, Reason: "why", Replayed: key == "again"}, f.err
}

func (f *fake) Grants(_ context.Context, tenant, _ string, filter earmark.PageFilter) (earmark.Page[earmark.Grant], error) {
	f.record("Grants", filter)
	f.of(tenant)
	return earmark.Page[earmark.Grant]{Data: []earmark.Grant{}}, f.err
}

func (f *fake) UsageReport(_ context.Context, tenant, budgetID string, query earmark.UsageQuery) (*earmark.UsageReport, error) {
	f.record("UsageReport", query)
	if !f.of(tenant) || f.report == nil || f.report.BudgetID != budgetID {
		return nil, f.err
	}
	return f.report, f.err
}

func (f *fake) Entries(_ context.Context, tenant string, filter earmark.EntryFilter) (earmark.Page[earmark.Entry], error) {
	f.record("Entries", filter)
	f.of(tenant)
	return f.entries, f.err
}

func (f *fake) Ready(ctx context.Context) error {
	if f.postgresReady == nil {
		return nil
	}
	return f.postgresReady(ctx)
}

func (f *fake) Overview(_ context.Context, tenant string, within []string) (earmark.Overview, error) {
	f.record("Overview", overviewCall{tenant, within})
	f.of(tenant)
	return f.overview, f.err
}

// overviewCall is what an overview was asked for.
type overviewCall struct {
	tenant string
	within []string
}

// fakeCoordinator is the same fake as a Coordinator; the two interfaces share the name Ready.
type fakeCoordinator struct{ *fake }

func (g fakeCoordinator) Admit(_ context.Context, admission earmark.Admission) (earmark.Result, error) {
	g.record("Admit", admission)
	return g.result, g.coordinatorErr
}

func (g fakeCoordinator) Commit(_ context.Context, settlement earmark.Transition, usage earmark.Amounts) (earmark.Result, bool, error) {
	g.set(func() { g.settlement = settlement })
	g.record("Commit", usage)
	g.of(settlement.Tenant)
	return g.result, g.accepted, g.coordinatorErr
}

func (g fakeCoordinator) Release(_ context.Context, settlement earmark.Transition) (earmark.Result, bool, error) {
	g.set(func() { g.settlement = settlement })
	g.record("Release", settlement)
	g.of(settlement.Tenant)
	return g.result, g.accepted, g.coordinatorErr
}

func (g fakeCoordinator) Extend(_ context.Context, settlement earmark.Transition, ttl time.Duration) (earmark.Result, error) {
	g.set(func() { g.settlement = settlement })
	g.record("Extend", ttl)
	g.of(settlement.Tenant)
	return g.result, g.coordinatorErr
}

func (g fakeCoordinator) Guarded(_ context.Context, workflowID string) (bool, error) {
	g.record("Guarded", workflowID)
	return g.guarded, g.coordinatorErr
}

func (g fakeCoordinator) Adopt(_ context.Context, check earmark.Check) error {
	g.record("Start", check)
	return g.coordinatorErr
}

func (g fakeCoordinator) WorkersReady(ctx context.Context) error {
	if g.workersReady == nil {
		return nil
	}
	return g.workersReady(ctx)
}

func (g fakeCoordinator) Ready(ctx context.Context) error {
	if g.temporalReady == nil {
		return nil
	}
	return g.temporalReady(ctx)
}

const testWebhookID = "whk_7sk2nq4d5aaaaaaaaaaaaaaaaa"

// endpoint is the webhook that the fake has; nil for every other id and tenant.
func (f *fake) endpoint(tenant, id string) (*earmark.Webhook, error) {
	if !f.of(tenant) || id != testWebhookID {
		return nil, f.err
	}
	return &earmark.Webhook{ID: id, URL: "https://example.com", Types: []earmark.EventType{}, Budgets: []string{}, Scopes: []string{}, Enabled: true, After: "evt_1_0"}, f.err
}

func (f *fake) issuedWebhook(tenant, id string) (*earmark.IssuedWebhook, error) {
	w, err := f.endpoint(tenant, id)
	if err != nil || w == nil {
		return nil, err
	}
	return &earmark.IssuedWebhook{Webhook: *w, Secret: "whsec_x"}, nil
}

func (f *fake) CreateWebhook(_ context.Context, tenant string, request earmark.WebhookRequest, by earmark.Actor) (*earmark.IssuedWebhook, error) {
	f.set(func() { f.by = by })
	f.record("CreateWebhook", request)
	return f.issuedWebhook(tenant, testWebhookID)
}

func (f *fake) Webhook(_ context.Context, tenant, id string) (*earmark.Webhook, error) {
	f.record("Webhook", id)
	return f.endpoint(tenant, id)
}

func (f *fake) Webhooks(_ context.Context, tenant string, filter earmark.PageFilter) (page earmark.Page[earmark.Webhook], err error) {
	f.record("Webhooks", filter)
	w, err := f.endpoint(tenant, testWebhookID)
	if w != nil {
		page.Data = append(page.Data, *w)
	}
	return page, err
}

func (f *fake) PatchWebhook(_ context.Context, tenant, id string, patch earmark.WebhookPatch, by earmark.Actor) (*earmark.Webhook, error) {
	f.set(func() { f.by = by })
	f.record("PatchWebhook", patch)
	return f.endpoint(tenant, id)
}

func (f *fake) DeleteWebhook(_ context.Context, tenant, id string, by earmark.Actor) (*earmark.Webhook, error) {
	f.set(func() { f.by = by })
	f.record("DeleteWebhook", id)
	return f.endpoint(tenant, id)
}

func (f *fake) RotateWebhookSecret(_ context.Context, tenant, id string, by earmark.Actor) (*earmark.IssuedWebhook, error) {
	f.set(func() { f.by = by })
	f.record("RotateWebhookSecret", id)
	return f.issuedWebhook(tenant, id)
}

func (f *fake) ReplayWebhook(_ context.Context, tenant, id string, request earmark.WebhookReplay, by earmark.Actor) (*earmark.Webhook, error) {
	f.set(func() { f.by = by })
	f.record("ReplayWebhook", request)
	return f.endpoint(tenant, id)
}

func (f *fake) WebhookTarget(_ context.Context, tenant, id string) (*webhook.Target, error) {
	f.record("WebhookTarget", id)
	if w, err := f.endpoint(tenant, id); err != nil || w == nil {
		return nil, err
	}
	return f.target, nil
}

func (f *fake) Deliveries(_ context.Context, id string, filter earmark.PageFilter) (earmark.Page[earmark.Delivery], error) {
	f.record("Deliveries", filter)
	return earmark.Page[earmark.Delivery]{Data: []earmark.Delivery{{ID: 7, EventID: "evt_1_2", Type: earmark.EventExpired, Attempt: 1, Status: 200}}}, f.err
}
