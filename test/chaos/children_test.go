//go:build unix

package chaos_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
)

// child is a budget that a template made, past the product.
type child struct {
	ID          string
	Tenant      string
	Scope       string
	TemplateID  string
	LimitAmount int64
	Given       *int64 // the limit of the template's revision that it follows
	CreatedAt   time.Time
	ArchivedAt  *time.Time
	Made        int // records of that
}

// children adds the budgets that templates have made to those of their tenants, and lists what is wrong with them: one was made twice, or has
// another limit than its template's revision. It runs when nothing changes any more.
func (d *driver) children(c *cluster) (problems []string) {
	complain := func(child child, format string, args ...any) {
		problems = append(problems, fmt.Sprintf("%s of %s on %s: ", child.ID, child.Tenant, child.Scope)+fmt.Sprintf(format, args...))
	}
	all := collect[child](c.t, c.Pool(), `SELECT b.id, b.tenant, b.scope, b.template_id, b.limit_amount, r.limit_amount AS given, b.created_at, b.archived_at,
			(SELECT count(*) FROM earmark.audit_log a WHERE a.subject = b.id AND a.action = 'budget.create') AS made
		FROM earmark.budgets b LEFT JOIN earmark.template_revisions r ON r.template_id = b.template_id AND r.revision = b.revision
		WHERE b.template_id IS NOT NULL ORDER BY b.tenant, b.scope, b.created_at`)
	archived := 0
	for i, child := range all {
		template := d.budget(child.TemplateID)
		switch {
		case template == nil || d.budgetOwner(child.TemplateID) != child.Tenant:
			complain(child, "its template is not the tenant's")
			continue
		case child.Made != 1:
			complain(child, "it was made %d times", child.Made)
		case child.ArchivedAt != nil:
			archived++
		case child.Given == nil || *child.Given != child.LimitAmount:
			complain(child, "its limit is %d, and that of the revision that it follows %v", child.LimitAmount, child.Given)
		}
		if !slices.ContainsFunc(template.limits, func(c limitChange) bool { return c.limit == child.LimitAmount }) {
			complain(child, "its limit is %d, which nobody gave", child.LimitAmount)
		}
		if i > 0 && all[i-1].Tenant == child.Tenant && all[i-1].Scope == child.Scope {
			if before := all[i-1].ArchivedAt; before == nil || before.After(child.CreatedAt) {
				complain(child, "it was made while there was %s", all[i-1].ID)
			}
		}
		own := d.tenant(child.Tenant).budgets
		copied := *template
		copied.ID, copied.Scope, copied.Template = child.ID, child.Scope, false
		own.list = append(own.list, &copied)
	}
	if !d.former && d.took > time.Minute && (archived == 0 || archived == len(all)) {
		problems = append(problems, fmt.Sprintf("of %d budgets that templates made, %d were archived: that shows nothing", len(all), archived))
	}
	for _, own := range d.tenants {
		problems = append(problems, own.childrenShown(c)...)
	}
	c.t.Logf("templates made %d budgets, of which %d were archived", len(all), archived)
	return problems
}

// childrenShown compares what the API shows of a template and of its children: each has the template's limit of now.
func (own *tenant) childrenShown(c *cluster) (problems []string) {
	for _, template := range own.budgets.list {
		if !template.Template {
			continue
		}
		shown, err := own.clients[0].Budget(context.Background(), template.ID)
		require.NoError(c.t, err)
		page, err := own.clients[0].Budgets(context.Background(), earmark.BudgetFilter{TemplateID: template.ID, Limit: earmark.MaxPageSize})
		require.NoError(c.t, err)
		for _, child := range page.Data {
			if child.Limit != shown.Limit || !child.FollowsTemplate {
				problems = append(problems, fmt.Sprintf("%s shows the limit %d, and its template %d", child.ID, child.Limit, shown.Limit))
			}
		}
	}
	return problems
}

// budgetOwner is the tenant that made a budget.
func (d *driver) budgetOwner(id string) string {
	for _, own := range d.tenants {
		if slices.ContainsFunc(own.budgets.list, func(b *budget) bool { return b.ID == id }) {
			return own.name
		}
	}
	return ""
}
