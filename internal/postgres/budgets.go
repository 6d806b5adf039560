package postgres

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/earmark-dev/earmark"
)

const (
	createBudgetSQL = "SELECT earmark.create_budget(p_id => @id, p_tenant => @tenant, p_scope => @scope, p_unit => @unit, p_limit => @limit, " +
		"p_period => @period, p_timezone => @timezone, p_enforcement => @enforcement, p_soft_ceiling => @soft_ceiling, p_overage => @overage, p_actor => @actor, " +
		"p_every => @every, p_anchor => nullif(@anchor::text, '')::timestamp, p_thresholds => @thresholds, p_allowance => @allowance, p_rollover => @rollover)"
	changeBudgetSQL = "SELECT earmark.change_budget(p_tenant => @tenant, p_id => @id, p_limit => @limit, p_enforcement => @enforcement, " +
		"p_soft_ceiling => @soft_ceiling, p_overage => @overage, p_actor => @actor, p_reason => @reason, p_thresholds => @thresholds, p_next_window => @next_window, p_allowance => @allowance, p_rollover => @rollover)"
	setFollowingSQL = "SELECT earmark.set_following(p_tenant => @tenant, p_id => @id, p_follow => @follow, p_actor => @actor)"
	lockBudgetSQL   = "SELECT limit_amount, enforcement, soft_ceiling, overage, archived_at, period, thresholds, scope, allowance, rollover " +
		"FROM earmark.lock_budget(p_tenant => @tenant, p_id => @id)"
	archiveBudgetSQL = "SELECT earmark.archive_budget(p_tenant => @tenant, p_id => @id, p_actor => @actor)"
)

var (
	//go:embed sql/budgets.sql
	budgetsSQL string
	//go:embed sql/budget_windows.sql
	budgetWindowsSQL string
)

// CreateBudget stores a valid request whose defaults are filled. The error is
// CodeBudgetExists if the scope has a budget for the same unit and length of window.
func (l *Ledger) CreateBudget(ctx context.Context, tenant string, r earmark.BudgetRequest, by earmark.Actor) (*earmark.Budget, error) {
	if err := l.checkTimezone(ctx, r.Window.Timezone); err != nil {
		return nil, err
	}
	id := earmark.NewBudgetID()
	_, err := l.pool.Exec(ctx, createBudgetSQL, namedArgs{
		"id": id, "tenant": tenant, "scope": r.Scope, "unit": r.Unit, "limit": *r.Limit, "period": string(r.Window.Period), "timezone": r.Window.Timezone,
		"every": storedEvery(r.Window), "anchor": r.Window.Anchor, "enforcement": string(r.Enforcement), "soft_ceiling": r.SoftCeiling, "overage": string(r.Overage), "actor": by.String(),
		"thresholds": storedThresholds(r.Thresholds), "allowance": string(r.Allowance), "rollover": storedRollover(r.Rollover)})
	if sqlState(err) == uniqueViolation {
		return nil, earmark.Errorf(earmark.CodeBudgetExists, "%s has a budget of %s per %s already; change it with PATCH, or archive it first", r.Scope, r.Unit, r.Window.Length())
	}
	if err != nil {
		return nil, fault(err)
	}
	return l.Budget(ctx, tenant, id)
}

// storedEvery returns what the column every holds: for a rolling window, its minutes.
func storedEvery(w earmark.Window) int64 {
	if w.Period == earmark.PeriodRolling {
		return w.RollingSeconds / earmark.RollingSlices
	}
	return w.Every
}

// storedThresholds returns what the functions of budgets take as thresholds: [] for none, since null leaves
// them as they are.
func storedThresholds(thresholds []earmark.Threshold) []earmark.Threshold {
	return append([]earmark.Threshold{}, thresholds...)
}

// storedRollover returns what they take as rollover: {} for none.
func storedRollover(r *earmark.Rollover) any {
	if r == nil {
		return struct{}{}
	}
	return r
}

// checkTimezone refuses a time zone that Postgres does not have under exactly this
// name. Postgres also computes with abbreviations, with POSIX rules such as "Etc/Foo5"
// and with names in any case, but as a setting it gives each its own name. The setting
// lasts for the statement alone.
func (l *Ledger) checkTimezone(ctx context.Context, name string) error {
	var set string
	err := l.pool.QueryRow(ctx, "SELECT set_config('timezone', $1, true)", name).Scan(&set)
	if sqlState(err) == invalidParameterValue || (err == nil && set != name) { // mutation: zone-in-postgres
		refused := earmark.Errorf(earmark.CodeInvalidRequest, "Postgres has no time zone of the name %q; use one of the IANA time zone database, such as Europe/Berlin", name)
		refused.Field = "window.timezone"
		return refused
	}
	return fault(err)
}

// Budget returns one budget, archived or not, with the balance of its current window; nil
// if there is none.
func (l *Ledger) Budget(ctx context.Context, tenant, id string) (*earmark.Budget, error) {
	budgets, err := queryBudgets(ctx, l.pool, tenant, id, earmark.BudgetFilter{Limit: 1})
	if err != nil || len(budgets) == 0 {
		return nil, err
	}
	return &budgets[0], nil
}

// Budgets lists the budgets that are not archived, newest first.
func (l *Ledger) Budgets(ctx context.Context, tenant string, f earmark.BudgetFilter) (earmark.Page[earmark.Budget], error) {
	limit := pageSize(f.Limit)
	f.Limit = limit + 1
	budgets, err := queryBudgets(ctx, l.lists, tenant, "", f)
	if err != nil {
		return earmark.Page[earmark.Budget]{}, err
	}
	return page(budgets, limit, func(b earmark.Budget) string { return budgetList(tenant, f).cursor(b.CreatedAt, b.ID) }), nil
}

// BudgetWindows lists the balances of a budget's windows in which something was reserved or
// charged, the newest first; of a rolling budget, those of its slices. Each has the budget's
// limit of now. It lists none if there is no such budget.
func (l *Ledger) BudgetWindows(ctx context.Context, tenant, id string, f earmark.WindowFilter) (earmark.Page[earmark.Balance], error) {
	var none earmark.Page[earmark.Balance]
	list := listOf("windows", tenant, id)
	before, _, err := list.parse(f.Cursor)
	if err != nil {
		return none, err
	}
	limit := pageSize(f.Limit)
	rows, err := l.lists.Query(ctx, budgetWindowsSQL, tenant, id, before, limit+1)
	if err != nil {
		return none, fault(err)
	}
	balances, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (earmark.Balance, error) {
		var b earmark.Balance
		var granted earmark.Granted
		err := row.Scan(&b.Limit, &b.EffectiveLimit, &b.Reserved, &b.Committed, &b.WindowStart, &b.WindowEnd, &granted.Reserved, &granted.Committed, &granted.Remaining)
		return shownBalance(b, granted), err
	})
	if err != nil {
		return none, fault(err)
	}
	return page(balances, limit, func(b earmark.Balance) string { return list.cursor(b.WindowStart, "") }), nil
}

// shownBalance fills what follows from the limit and the sums.
func shownBalance(b earmark.Balance, granted earmark.Granted) earmark.Balance {
	if granted != (earmark.Granted{}) {
		b.Granted = &granted
	}
	b.Available = b.EffectiveLimit - b.Reserved - b.Committed // the sum of the two fits int64, see windows_sum_check
	b.WindowStart, b.WindowEnd = b.WindowStart.UTC(), utc(b.WindowEnd)
	return b
}

// PatchBudget changes a budget under its lock, so that an admission sees the limit before
// or after the change. It returns nil if there is no such budget.
func (l *Ledger) PatchBudget(ctx context.Context, tenant, id string, patch earmark.BudgetPatch, by earmark.Actor) (*earmark.Budget, error) {
	err := l.inTx(ctx, func(tx pgx.Tx) error {
		var b earmark.Budget
		err := tx.QueryRow(ctx, lockBudgetSQL, namedArgs{"tenant": tenant, "id": id}).Scan(&b.Limit, &b.Enforcement, &b.SoftCeiling, &b.Overage, &b.ArchivedAt, &b.Window.Period, &b.Thresholds, &b.Scope, &b.Allowance, &b.Rollover)
		if isNoRows(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if b.ArchivedAt != nil {
			return archivedBudget(*b.ArchivedAt)
		}
		before := b
		if err := patch.Apply(&b); err != nil {
			return err
		}
		if patch.FollowsTemplate != nil {
			return setFollowing(ctx, tx, tenant, id, *patch.FollowsTemplate, by)
		}
		change := describeChange(before, b)
		if change == "" {
			return nil
		}
		_, err = tx.Exec(ctx, changeBudgetSQL, namedArgs{
			"tenant": tenant, "id": id, "limit": b.Limit, "enforcement": string(b.Enforcement), "soft_ceiling": b.SoftCeiling, "overage": string(b.Overage),
			"allowance": string(b.Allowance), "thresholds": storedThresholds(b.Thresholds), "rollover": storedRollover(b.Rollover), "actor": by.String(), "reason": change, "next_window": patch.NextWindow()})
		return err
	})
	if err != nil {
		return nil, err
	}
	return l.Budget(ctx, tenant, id)
}

// setFollowing lets a budget whose row the transaction has locked follow its template, or no more.
func setFollowing(ctx context.Context, tx pgx.Tx, tenant, id string, follow bool, by earmark.Actor) error {
	var found bool
	err := tx.QueryRow(ctx, setFollowingSQL, namedArgs{"tenant": tenant, "id": id, "follow": follow, "actor": by.String()}).Scan(&found)
	if err == nil && !found {
		return earmark.Invalidf("follows_template", "there is no template for this budget: its scope with * in place of the last segment has no budget of the same unit and length of window")
	}
	return err
}

func archivedBudget(at time.Time) error {
	return earmark.Errorf(earmark.CodeInvalidRequest, "the budget was archived at %s and cannot change any more", at.UTC().Format(time.RFC3339))
}

// ArchiveBudget archives a budget: it no longer limits new requests, and its open
// reservations still settle. Archiving it again changes nothing. It returns nil if there is
// no such budget.
func (l *Ledger) ArchiveBudget(ctx context.Context, tenant, id string, by earmark.Actor) (*earmark.Budget, error) {
	if _, err := l.pool.Exec(ctx, archiveBudgetSQL, namedArgs{"tenant": tenant, "id": id, "actor": by.String()}); err != nil {
		return nil, fault(err)
	}
	return l.Budget(ctx, tenant, id)
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func queryBudgets(ctx context.Context, from querier, tenant, id string, f earmark.BudgetFilter) ([]earmark.Budget, error) {
	createdAt, lastID, err := budgetList(tenant, f).parse(f.Cursor)
	if err != nil {
		return nil, err
	}
	covering := []string{}
	if f.Covering != "" {
		covering = earmark.ScopePaths(f.Covering)
	}
	rows, err := from.Query(ctx, budgetsSQL, tenant, id, f.Scope, covering, createdAt, lastID, f.Limit, orNone(f.Within), f.TemplateID)
	if err != nil {
		return nil, fault(err)
	}
	budgets, err := pgx.CollectRows(rows, scanBudget)
	return budgets, fault(err)
}

func budgetList(tenant string, f earmark.BudgetFilter) list {
	return listOf("budgets", tenant, f.Scope, f.Covering, f.TemplateID, f.Within)
}

func scanBudget(row pgx.CollectableRow) (earmark.Budget, error) {
	var b earmark.Budget
	var granted earmark.Granted
	err := row.Scan(&b.ID, &b.Scope, &b.Unit, &b.Limit, &b.Window, &b.Enforcement, &b.SoftCeiling, &b.Overage,
		&b.CreatedAt, &b.ArchivedAt, &b.Balance.EffectiveLimit, &b.Balance.Reserved, &b.Balance.Committed, &b.Balance.WindowStart, &b.Balance.WindowEnd, &b.Thresholds,
		&b.Template, &b.TemplateID, &b.FollowsTemplate,
		&b.Allowance, &b.Rollover, &granted.Reserved, &granted.Committed, &granted.Remaining)
	b.Balance.Limit = b.Limit
	b.Balance = shownBalance(b.Balance, granted)
	b.CreatedAt, b.ArchivedAt = b.CreatedAt.UTC(), utc(b.ArchivedAt)
	return b, err
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// describeChange says for the journal what differs, "" when nothing does.
func describeChange(before, after earmark.Budget) string {
	var changes []string
	if before.Limit != after.Limit {
		changes = append(changes, fmt.Sprintf("limit %d to %d", before.Limit, after.Limit))
	}
	if before.Enforcement != after.Enforcement {
		changes = append(changes, fmt.Sprintf("enforcement %s to %s", before.Enforcement, after.Enforcement))
	}
	if ceilingText(before.SoftCeiling) != ceilingText(after.SoftCeiling) {
		changes = append(changes, fmt.Sprintf("soft_ceiling %s to %s", ceilingText(before.SoftCeiling), ceilingText(after.SoftCeiling)))
	}
	if before.Overage != after.Overage {
		changes = append(changes, fmt.Sprintf("overage %s to %s", before.Overage, after.Overage))
	}
	if before.Allowance != after.Allowance {
		changes = append(changes, fmt.Sprintf("allowance %s to %s", before.Allowance, after.Allowance))
	}
	if !before.Rollover.Equal(after.Rollover) {
		changes = append(changes, fmt.Sprintf("rollover %s to %s", rolloverText(before.Rollover), rolloverText(after.Rollover)))
	}
	if !slices.Equal(before.Thresholds, after.Thresholds) {
		changes = append(changes, fmt.Sprintf("thresholds %s to %s", thresholdsText(before.Thresholds), thresholdsText(after.Thresholds)))
	}
	return strings.Join(changes, ", ")
}

func rolloverText(r *earmark.Rollover) string {
	if r == nil {
		return "none"
	}
	text := fmt.Sprintf("%d for %d windows", r.Max, r.Windows)
	if r.MaxTotal != nil {
		text += fmt.Sprintf(" and %d in all", *r.MaxTotal)
	}
	return text
}

func thresholdsText(thresholds []earmark.Threshold) string {
	if len(thresholds) == 0 {
		return "none"
	}
	texts := make([]string, len(thresholds))
	for i, t := range thresholds {
		if texts[i] = fmt.Sprintf("%d of %s", t.Amount, t.Of); t.Percent > 0 {
			texts[i] = fmt.Sprintf("%d%% of %s", t.Percent, t.Of)
		}
	}
	return strings.Join(texts, " and ")
}

func ceilingText(ceiling *int64) string {
	if ceiling == nil {
		return "none"
	}
	return fmt.Sprint(*ceiling)
}
