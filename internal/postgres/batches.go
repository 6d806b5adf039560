package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

const (
	reserveSQL = "SELECT earmark.reserve(p_id => @id, p_tenant => @tenant, p_hash => @hash, p_scopes => @scopes, p_amounts => @amounts, " +
		"p_ttl_ms => @ttl_ms, p_on_expiry => @on_expiry, p_metadata => @metadata, p_workflow_id => @workflow_id, " +
		"p_admit_by => @admit_by, p_released => @released, p_actor => @actor, p_any_scope => @any_scope, p_require_budget => @require_budget)"
	reserveBatchSQL = "SELECT earmark.reserve_batch(p_tenant => @tenant, p_calls => @calls, p_actor => @actor)"
	commitSQL       = "SELECT earmark.commit(p_tenant => @tenant, p_id => @id, p_usage => @usage, p_actor => @actor, p_reason => @reason, p_attempt => @attempt, " +
		"p_estimated => @estimated, p_response => @response)"
	refuseOverflowSQL = "SELECT earmark.refuse_overflow(p_tenant => @tenant, p_id => @id, p_usage => @usage, p_actor => @actor)"
	commitBatchSQL    = "SELECT earmark.commit_batch(p_calls => @calls)"
)

func (l *Ledger) reserveSingle(ctx context.Context, a earmark.Admission) (earmark.Result, error) {
	return l.transition(ctx, reserveSQL, namedArgs{
		"id": a.ID, "tenant": a.Tenant, "hash": a.RequestHash, "scopes": a.Request.Scopes, "amounts": a.Request.Amounts,
		"ttl_ms": a.Request.TTL().Milliseconds(), "on_expiry": string(a.Request.OnExpiry), "metadata": metadata(a.Request.Metadata),
		"workflow_id": a.WorkflowID, "admit_by": orNull(a.AdmitBy), "released": a.Released, "any_scope": a.Request.AnyScope(),
		"require_budget": a.Request.RequireBudget, "actor": a.Actor().String()})
}

// reserveCall is an admission in the form of earmark.reserve_batch.
type reserveCall struct {
	ID         string           `json:"id"`
	Hash       string           `json:"hash"`
	Scopes     []string         `json:"scopes"`
	Amounts    earmark.Amounts  `json:"amounts"`
	TTLMS      int64            `json:"ttl_ms"`
	OnExpiry   string           `json:"on_expiry"`
	Metadata   earmark.Metadata `json:"metadata"`
	WorkflowID string           `json:"workflow_id"`
	AdmitBy    any              `json:"admit_by"`
	Released   bool             `json:"released"`
	AnyScope   bool             `json:"any_scope"`
	Required   bool             `json:"require_budget"`
	Actor      earmark.Actor    `json:"actor"`
}

func (l *Ledger) reserveBatch(ctx context.Context, admissions []earmark.Admission) ([]*earmark.Result, error) {
	calls := make([]reserveCall, len(admissions))
	for i, a := range admissions {
		calls[i] = reserveCall{ID: a.ID, Hash: a.RequestHash, Scopes: a.Request.Scopes, Amounts: a.Request.Amounts,
			TTLMS: a.Request.TTL().Milliseconds(), OnExpiry: string(a.Request.OnExpiry), Metadata: metadata(a.Request.Metadata),
			WorkflowID: a.WorkflowID, AdmitBy: orNull(a.AdmitBy), Released: a.Released, AnyScope: a.Request.AnyScope(), Required: a.Request.RequireBudget, Actor: a.Actor()}
	}
	return l.transitions(ctx, reserveBatchSQL, namedArgs{"tenant": admissions[0].Tenant, "calls": calls, "actor": earmark.ActorWorkflow.String()})
}

// commitCall is a commit that waits in a batch.
type commitCall struct {
	settlement earmark.Transition
	usage      earmark.Amounts
}

func (l *Ledger) commitSingle(ctx context.Context, c commitCall) (earmark.Result, error) {
	s := c.settlement
	args := byName(s)
	args["usage"], args["attempt"], args["estimated"], args["response"] = c.usage, s.Attempt, s.Estimated, s.Response
	result, err := l.transition(ctx, commitSQL, args)
	if err == nil && result.Outcome == earmark.OutcomeOverflow {
		// Postgres has rolled the commit back with everything that it wrote. A caller that
		// sent it by signal finds the refusal only in the journal.
		return l.transition(ctx, refuseOverflowSQL, args) // mutation: overflow-entry
	}
	return result, err
}

func (l *Ledger) commitBatch(ctx context.Context, commits []commitCall) ([]*earmark.Result, error) {
	type call struct {
		earmark.Transition
		Usage  earmark.Amounts `json:"usage"`
		Reason string          `json:"reason"` // also if it is empty
	}
	calls := make([]call, len(commits))
	for i, c := range commits {
		calls[i] = call{c.settlement, c.usage, c.settlement.Reason}
	}
	return l.transitions(ctx, commitBatchSQL, namedArgs{"calls": calls})
}

// transitions calls a ledger function that returns a Result, or null, for each of several
// calls.
func (l *Ledger) transitions(ctx context.Context, sql string, args ...any) ([]*earmark.Result, error) {
	rows, err := l.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fault(err)
	}
	results, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*earmark.Result, error) {
		var document []byte
		if err := row.Scan(&document); err != nil || document == nil {
			return nil, err
		}
		result := new(earmark.Result)
		if err := json.Unmarshal(document, result); err != nil {
			return nil, fmt.Errorf("the ledger's answer does not decode: %w", err)
		}
		return result, nil
	})
	return results, fault(err)
}
