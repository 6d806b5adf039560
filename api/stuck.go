package api

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
	"github.com/earmark-dev/earmark/workflows/card"
)

const (
	// findTimeout bounds how long Temporal may take to find stuck workflows.
	findTimeout = 3 * time.Second
	// findingsKept is how long a finding is reused, because many clients may watch.
	findingsKept = 2 * time.Second
	// maxSuspects bounds the reservations whose workflows one search describes.
	maxSuspects = 50
)

// StuckFinder finds the stuck reservations that only Temporal knows.
type StuckFinder interface {
	// Find finds stuck workflows of a tenant, among suspects (workflow ids) too.
	Find(ctx context.Context, tenant string, suspects []string) (workflowstore.Findings, error)
	// Lost describes a reservation that Postgres has lost; nil where there is none.
	Lost(ctx context.Context, tenant, workflowID string) (*earmark.Reservation, error)
	// Searches are the queries that find the same in Temporal UI.
	Searches(tenant string, now time.Time) []earmark.Search
}

// lookout searches Temporal for stuck workflows, once for all callers of a tenant at the
// same time.
type lookout struct {
	prefix workflows.Prefix
	finder StuckFinder
	ledger Ledger
	log    *slog.Logger

	findings sharedBy[finding] // by tenant
}

// finding is the result of one search.
type finding struct {
	workflows map[string]workflowstore.StuckWorkflow // by reservation id
	// incomplete says what was not checked; empty if everything was.
	incomplete string
}

// look returns a finding no older than findingsKept.
func (l *lookout) look(ctx context.Context, tenant string) (finding, error) {
	if l.finder == nil {
		return finding{}, nil
	}
	return l.findings.get(ctx, tenant, func(ctx context.Context) (finding, error) { return l.search(ctx, tenant), nil })
}

func (l *lookout) search(ctx context.Context, tenant string) finding {
	found := finding{workflows: make(map[string]workflowstore.StuckWorkflow)}
	suspects, err := l.ledger.Suspects(ctx, tenant, maxSuspects)
	if err != nil { // the ledger's own list answers, or fails as well
		l.log.WarnContext(ctx, "Postgres did not list whose workflows to look for.", "error", err)
		found.incomplete = "Postgres did not list the reservations whose workflows are looked for"
	}
	for i, id := range suspects {
		suspects[i] = l.prefix.ReservationWorkflowID(id)
	}
	stuck, err := l.finder.Find(ctx, tenant, suspects)
	for _, workflow := range stuck.Workflows {
		found.workflows[l.prefix.ReservationOf(workflow.WorkflowID)] = workflow
	}
	switch {
	case err != nil:
		l.log.WarnContext(ctx, "Temporal did not report which workflows are stuck.", "error", err)
		found.incomplete = "Temporal did not answer, so what only Temporal knows is not looked at: paused, task_failing and settlement_failing"
	case stuck.Incomplete != "":
		found.incomplete = stuck.Incomplete
	}
	return found
}

// listStuck answers from Postgres even if Temporal is away, and says what it could not
// check.
func (s *server) listStuck(c *gin.Context, filter earmark.ReservationFilter) error {
	ctx, by := c.Request.Context(), callerOf(c)
	found, err := s.lookout.look(ctx, by.tenant)
	if err != nil {
		return err
	}
	var reported earmark.StuckIDs
	for id, workflow := range found.workflows {
		switch workflow.Reason {
		case earmark.StuckPaused:
			reported.Paused = append(reported.Paused, id)
		case earmark.StuckTaskFailing:
			reported.TaskFailing = append(reported.TaskFailing, id)
		case earmark.StuckOrphan:
			reported.Unguarded = append(reported.Unguarded, id)
		default:
			reported.SettlementFailing = append(reported.SettlementFailing, id)
		}
	}
	page, err := inQueue(ctx, s.queues.lists, by.turn(), func() (earmark.Page[earmark.Reservation], error) {
		return s.ledger.Stuck(ctx, by.tenant, filter, reported)
	})
	if err != nil {
		return err
	}
	shown := earmark.StuckPage{Page: earmark.Page[earmark.Reservation]{Data: []earmark.Reservation{}, NextCursor: page.NextCursor},
		Incomplete: found.incomplete, Searches: s.searches(by.tenant)}
	if filter.Cursor == "" {
		lost, err := s.lost(ctx, by, filter, found.workflows)
		if err != nil {
			s.log.WarnContext(ctx, "What Postgres has lost is not listed.", "error", err)
			shown.Incomplete = cmp.Or(shown.Incomplete, "the reservations that Postgres has lost could not all be looked up")
		}
		page.Data = slices.Concat(lost, page.Data)
	}
	for _, r := range page.Data {
		explain(&r, found.workflows[r.ID])
		shown.Data = append(shown.Data, s.show(&r))
	}
	return answer(c, http.StatusOK, shown)
}

// explain adds Temporal's information to a row of the ledger.
func explain(r *earmark.Reservation, workflow workflowstore.StuckWorkflow) {
	if r.Stuck == nil {
		r.Stuck = &earmark.Stuck{Reason: workflow.Reason}
	}
	if r.Stuck.Reason == workflow.Reason {
		r.Stuck.Detail = workflow.Detail
		if workflow.Since != nil {
			r.Stuck.Since = workflow.Since
			r.Stuck.AgeSeconds = max(0, int64(time.Since(*workflow.Since).Seconds()))
		}
	}
	if len(r.RejectedUsage) > 0 && r.Stuck.Detail == "" {
		r.Stuck.Detail = "a budget refused the usage " + r.RejectedUsage.String() + ", which is more than was reserved"
	}
	r.Stuck.Remedy = card.Remedy(r, r.Stuck.Reason)
	if r.Stuck.Reason == earmark.StuckPaused && workflow.ActivityID != "" {
		r.Stuck.Remedy = card.UnpauseActivity(r.WorkflowID, workflow.ActivityID)
	}
}

// lost returns the reservations whose settlement fails and that Postgres no longer has.
// They precede the first page, because they have no place in its order. An error says that
// some of them could not be read.
func (s *server) lost(ctx context.Context, by caller, filter earmark.ReservationFilter, found map[string]workflowstore.StuckWorkflow) ([]earmark.Reservation, error) {
	if len(found) == 0 {
		return nil, nil
	}
	ids := slices.Sorted(maps.Keys(found))
	known, err := s.ledger.Known(ctx, by.tenant, ids)
	if err != nil {
		return nil, err
	}
	var lost []earmark.Reservation
	var faults error
	for _, id := range ids {
		workflow := found[id]
		if slices.Contains(known, id) || workflow.Reason == earmark.StuckOrphan || (filter.StuckReason != "" && filter.StuckReason != workflow.Reason) {
			continue
		}
		r, err := s.lookout.finder.Lost(ctx, by.tenant, workflow.WorkflowID)
		if err != nil {
			faults = err
		} else if r != nil && by.coversAll(r.Scopes) && covered(r, filter.Scope) {
			lost = append(lost, *r)
		}
	}
	return lost, faults
}

// covered reports whether the reservation has a scope at or under this one.
func covered(r *earmark.Reservation, scope string) bool {
	return scope == "" || slices.ContainsFunc(r.Scopes, func(s string) bool { return s == scope || strings.HasPrefix(s, scope+"/") })
}

// searches are the queries for Temporal UI, with their addresses where it has one.
func (s *server) searches(tenant string) []earmark.Search {
	if s.lookout.finder == nil {
		return []earmark.Search{}
	}
	searches := s.lookout.finder.Searches(tenant, time.Now())
	for i := range searches {
		if s.uiBase != "" {
			searches[i].URL = strings.TrimSuffix(s.uiBase, "/") + "?query=" + url.QueryEscape(searches[i].Query)
		}
	}
	return searches
}
