package api

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/workflows"
)

const (
	// findTimeout bounds how long Temporal may take to find stuck workflows.
	findTimeout = 3 * time.Second
	// findingsKept is how long a finding is answered again: many may watch.
	findingsKept = 2 * time.Second
	// maxSuspects bounds the reservations whose workflows are described in one look.
	maxSuspects = 50
)

// StuckFinder finds what only Temporal knows of stuck reservations.
type StuckFinder interface {
	// Find finds stuck workflows, among suspects (workflow ids) too.
	Find(ctx context.Context, suspects []string) ([]workflowstore.StuckWorkflow, error)
	// Lost describes a reservation that Postgres has lost; nil where there is none.
	Lost(ctx context.Context, tenant, workflowID string) (*earmark.Reservation, error)
	// Searches are the queries that find the same in Temporal UI.
	Searches(now time.Time) []earmark.Search
}

// lookout asks Temporal for stuck workflows, once for all who ask at the same time.
type lookout struct {
	finder StuckFinder
	ledger Ledger
	log    *slog.Logger

	mu    sync.Mutex
	at    time.Time
	found map[string]workflowstore.StuckWorkflow // by reservation id
	err   error
}

// look is never older than findingsKept. It goes on when its caller leaves, for
// others wait for it too.
func (l *lookout) look(ctx context.Context) (map[string]workflowstore.StuckWorkflow, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.finder == nil {
		return nil, nil
	}
	if time.Since(l.at) < findingsKept {
		return l.found, l.err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), findTimeout)
	defer cancel()
	l.found, l.err = l.ask(ctx)
	l.at = time.Now()
	if l.err != nil {
		l.log.WarnContext(ctx, "Temporal did not tell which workflows are stuck.", "error", l.err)
	}
	return l.found, l.err
}

func (l *lookout) ask(ctx context.Context) (map[string]workflowstore.StuckWorkflow, error) {
	suspects, err := l.ledger.Suspects(ctx, earmark.DefaultTenant, maxSuspects)
	if err != nil {
		return nil, err
	}
	for i, id := range suspects {
		suspects[i] = workflows.ReservationWorkflowID(id)
	}
	stuck, err := l.finder.Find(ctx, suspects)
	found := make(map[string]workflowstore.StuckWorkflow)
	for _, workflow := range stuck {
		found[workflows.ReservationOf(workflow.WorkflowID)] = workflow
	}
	return found, err
}

// listStuck answers from Postgres whatever Temporal does, and says what could not
// be looked at.
func (s *server) listStuck(c *gin.Context, filter earmark.ReservationFilter) error {
	ctx := c.Request.Context()
	found, lookErr := s.lookout.look(ctx)
	var reported earmark.StuckIDs
	for id, workflow := range found {
		switch workflow.Reason {
		case earmark.StuckTaskFailing:
			reported.TaskFailing = append(reported.TaskFailing, id)
		case earmark.StuckOrphan:
			reported.Unguarded = append(reported.Unguarded, id)
		default:
			reported.SettlementFailing = append(reported.SettlementFailing, id)
		}
	}
	page, err := inQueue(ctx, s.queues.lists, func() (earmark.Page[earmark.Reservation], error) {
		return s.ledger.Stuck(ctx, earmark.DefaultTenant, filter, reported)
	})
	if err != nil {
		return err
	}
	shown := earmark.StuckPage{Page: earmark.Page[earmark.Reservation]{Data: []earmark.Reservation{}, NextCursor: page.NextCursor}, Searches: s.searches()}
	if lookErr == nil && filter.Cursor == "" {
		page.Data = slices.Concat(s.lost(ctx, filter, found), page.Data)
	}
	for _, r := range page.Data {
		explain(&r, found[r.ID])
		shown.Data = append(shown.Data, s.show(&r))
	}
	if lookErr != nil {
		shown.Incomplete = "Temporal did not answer, so what only Temporal knows is not looked at: settlement_failing and task_failing"
	}
	return answer(c, http.StatusOK, shown)
}

// explain completes what the ledger found with what Temporal said.
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
	r.Stuck.Remedy = earmark.Remedy(r, r.Stuck.Reason)
}

// lost are the reservations whose settlement fails and that Postgres does not know
// any more. They come on top of the first page, for nothing orders them.
func (s *server) lost(ctx context.Context, filter earmark.ReservationFilter, found map[string]workflowstore.StuckWorkflow) []earmark.Reservation {
	if len(found) == 0 {
		return nil
	}
	ids := slices.Sorted(maps.Keys(found))
	known, err := s.ledger.Known(ctx, earmark.DefaultTenant, ids)
	if err != nil {
		return nil // the next look finds them
	}
	var lost []earmark.Reservation
	for _, id := range ids {
		workflow := found[id]
		if slices.Contains(known, id) || workflow.Reason == earmark.StuckOrphan || (filter.StuckReason != "" && filter.StuckReason != workflow.Reason) {
			continue
		}
		r, err := s.lookout.finder.Lost(ctx, earmark.DefaultTenant, workflow.WorkflowID)
		if err == nil && r != nil && covered(r, filter.Scope) {
			lost = append(lost, *r)
		}
	}
	return lost
}

// covered reports whether the reservation has a scope at or under this one.
func covered(r *earmark.Reservation, scope string) bool {
	return scope == "" || slices.ContainsFunc(r.Scopes, func(s string) bool { return s == scope || strings.HasPrefix(s, scope+"/") })
}

// searches are the queries for Temporal UI, with their addresses where it has one.
func (s *server) searches() []earmark.Search {
	if s.lookout.finder == nil {
		return []earmark.Search{}
	}
	searches := s.lookout.finder.Searches(time.Now())
	for i := range searches {
		if s.uiBase != "" {
			searches[i].URL = strings.TrimSuffix(s.uiBase, "/") + "?query=" + url.QueryEscape(searches[i].Query)
		}
	}
	return searches
}
