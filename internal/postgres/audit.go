package postgres

import (
	"context"
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed sql/audit/*.sql
var auditFS embed.FS

// AuditCheck is the result for one rule of the ledger, checked on every row that the rule
// covers.
type AuditCheck struct {
	Rule       string   `json:"rule"`       // such as "R1"
	Meaning    string   `json:"meaning"`    // the rule in one sentence
	Checked    int64    `json:"checked"`    // rows checked
	Mismatched int64    `json:"mismatched"` // rows that break the rule
	Examples   []string `json:"examples"`   // at most ten of them, described
}

// AuditReport is the result of an audit.
type AuditReport struct {
	Checks []AuditCheck `json:"checks"`
}

// Mismatches returns one line for each broken row; none if the ledger is clean.
func (r AuditReport) Mismatches() []string {
	var lines []string
	for _, check := range r.Checks {
		if check.Mismatched > 0 {
			lines = append(lines, fmt.Sprintf("%s (%s): %d mismatches, such as %s", check.Rule, check.Meaning, check.Mismatched, strings.Join(check.Examples, "; ")))
		}
	}
	return lines
}

// CheckRules checks the ledger's rules on the live database. It reads one snapshot and
// blocks nobody.
func (l *Ledger) CheckRules(ctx context.Context) (AuditReport, error) {
	var report AuditReport
	names, err := auditFS.ReadDir("sql/audit")
	if err != nil {
		return report, err
	}
	tx, err := l.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return report, fault(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	for _, name := range names {
		sql, err := auditFS.ReadFile("sql/audit/" + name.Name())
		if err != nil {
			return report, err
		}
		// The first line of each file is its title: -- R3: the rule in a sentence
		title, _, _ := strings.Cut(strings.TrimPrefix(string(sql), "-- "), "\n")
		check := AuditCheck{Examples: []string{}}
		check.Rule, check.Meaning, _ = strings.Cut(title, ": ")
		if err := tx.QueryRow(ctx, string(sql)).Scan(&check.Checked, &check.Mismatched, &check.Examples); err != nil {
			return report, fault(fmt.Errorf("%s: %w", name.Name(), err))
		}
		slices.Sort(check.Examples)
		report.Checks = append(report.Checks, check)
	}
	return report, nil
}
