package monitoring_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"
)

// Each alert fires on what it is for, after its time, and not on what is normal. The
// series are in Prometheus' own notation, one value every 15 s.
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	const step = 15 * time.Second
	always := func(value string) string { return value + "x1000" }
	for alert, test := range map[string]struct {
		fires map[string]string // series by what they mean
		quiet map[string]string
	}{
		"EarmarkDown": {
			fires: map[string]string{
				"a process is away": `up{job="earmark",instance="a"} ` + always("0"),
				"nobody is asked":   `up{job="other"} ` + always("1"),
				"Postgres is away":  `up{job="earmark"} ` + always("1") + "\n earmark_ledger_up{instance=\"a\"} " + always("0"),
			},
			quiet: map[string]string{"one of two reaches Postgres": `up{job="earmark"} ` + always("1") + "\n earmark_ledger_up{instance=\"a\"} " + always("0") + "\n earmark_ledger_up{instance=\"b\"} " + always("1")},
		},
		"EarmarkOverdueHolds": {
			fires: map[string]string{"nobody expires it": `earmark_most_overdue_seconds 0+15x1000`},
			quiet: map[string]string{"the sweeper does": `earmark_most_overdue_seconds ` + always("31")},
		},
		"EarmarkOrphans": {
			fires: map[string]string{"it stays one": `earmark_orphan_reservations ` + always("2")},
			quiet: map[string]string{"one at times": `earmark_orphan_reservations ` + strings.Repeat("0x15 1x5 ", 40)},
		},
		"EarmarkReviewWaiting": {
			fires: map[string]string{"nobody decides": `earmark_open_reservations{state="review"} ` + always("1")},
			quiet: map[string]string{"held alone": `earmark_open_reservations{state="held"} ` + always("100") + "\n earmark_open_reservations{state=\"review\"} " + always("0")},
		},
		"EarmarkSettlementFailing": {
			fires: map[string]string{"every 20 s": `earmark_settlement_failures_total{activity="Commit"} 0 1 2 2 ` + strings.Repeat("3x1 4 ", 1) + `4+1x1000`},
			quiet: map[string]string{"once": `earmark_settlement_failures_total{activity="Commit"} 0x20 3x1000`},
		},
		"EarmarkSweeperStalled": {
			fires: map[string]string{"it has stopped": `earmark_sweeper_last_success_timestamp_seconds ` + always("0"), "there is none": `up ` + always("1")},
			quiet: map[string]string{"one of two runs": `earmark_sweeper_last_success_timestamp_seconds{instance="a"} 0+15x1000` + "\n earmark_sweeper_last_success_timestamp_seconds{instance=\"b\"} " + always("0")},
		},
		"EarmarkReconcilerStalled": {
			fires: map[string]string{"it has stopped": `earmark_reconciler_last_success_timestamp_seconds ` + always("0"), "there is none": `up ` + always("1")},
			quiet: map[string]string{"every minute": `earmark_reconciler_last_success_timestamp_seconds ` + minutely(1000)},
		},
		"EarmarkAdmissionUnknown": {
			fires: map[string]string{"one in ten": `earmark_admissions_total{outcome="applied"} 0+90x1000` + "\n earmark_admissions_total{outcome=\"admission_unknown\"} 0+10x1000"},
			quiet: map[string]string{"denials alone": `earmark_admissions_total{outcome="denied"} 0+90x1000` + "\n earmark_admissions_total{outcome=\"admission_unknown\"} " + always("0")},
		},
		"EarmarkAdmissionSlow": {
			fires: map[string]string{"a second": `earmark_admission_duration_seconds_bucket{le="0.5"} 0+50x1000` + "\n earmark_admission_duration_seconds_bucket{le=\"1\"} 0+100x1000\n earmark_admission_duration_seconds_bucket{le=\"+Inf\"} 0+100x1000"},
			quiet: map[string]string{"a tenth": `earmark_admission_duration_seconds_bucket{le="0.1"} 0+100x1000` + "\n earmark_admission_duration_seconds_bucket{le=\"+Inf\"} 0+100x1000"},
		},
		"EarmarkPoolExhausted": {
			fires: map[string]string{"three wait": `earmark_pool_wait_seconds_total{instance="a",pool="ledger"} 0+45x1000`},
			quiet: map[string]string{"hardly one in each": `earmark_pool_wait_seconds_total{instance="a",pool="ledger"} 0+10x1000` + "\n" + `earmark_pool_wait_seconds_total{instance="a",pool="lists"} 0+10x1000`},
		},
		"EarmarkCertificateExpires": {
			fires: map[string]string{"in a day": `earmark_tls_certificate_expiry_timestamp_seconds ` + always("86400")},
			quiet: map[string]string{"in 20 days": `earmark_tls_certificate_expiry_timestamp_seconds ` + always("1728000"), "no TLS": `earmark_tls_certificate_expiry_timestamp_seconds ` + always("0")},
		},
		"EarmarkWebhookDisabled": {
			fires: map[string]string{"one": `earmark_webhook_disabled_total 0x200 1x1000`},
			quiet: map[string]string{"long ago": `earmark_webhook_disabled_total 1x1000`},
		},
		"EarmarkLateCommits": {
			fires: map[string]string{"one in twenty": `earmark_late_commits_total 0+5x1000` + "\n earmark_ledger_transitions_total{transition=\"commit\",outcome=\"applied\"} 0+100x1000"},
			quiet: map[string]string{"one in a thousand": `earmark_late_commits_total 0+1x1000` + "\n earmark_ledger_transitions_total{transition=\"commit\",outcome=\"applied\"} 0+1000x1000"},
		},
	} {
		rule := alertNamed(t, alert)
		hold := time.Duration(rule.For)
		require.NotEmpty(t, test.fires, alert)
		require.NotEmpty(t, test.quiet, alert)
		for what, series := range test.fires {
			active := activeFor(t, series, rule.Expr, step)
			require.GreaterOrEqual(t, active, hold, "%s does not fire: %s", alert, what)
		}
		for what, series := range test.quiet {
			active := activeFor(t, series, rule.Expr, step)
			require.Less(t, active, hold, "%s fires: %s", alert, what)
		}
	}
	alerts, _, err := readRules(root)
	require.NoError(t, err)
	require.Len(t, alerts, 13, "a new alert needs a line above")
}

// minutely is a time that moves on once a minute.
func minutely(steps int) string {
	var values []string
	for i := range steps {
		values = append(values, fmt.Sprint(i/4*60))
	}
	return strings.Join(values, " ")
}

// activeFor is the longest time that an expression has a result without a break,
// within an hour.
func activeFor(t *testing.T, series, expr string, step time.Duration) (longest time.Duration) {
	t.Helper()
	const watched = time.Hour
	storage := promqltest.LoadedStorage(t, fmt.Sprintf("load %s\n %s\n", step, series))
	defer func() { require.NoError(t, storage.Close()) }()
	engine := promqltest.NewTestEngineWithOpts(t, promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute})
	var active time.Duration
	for at := time.Duration(0); at <= watched; at += step {
		query, err := engine.NewInstantQuery(context.Background(), storage, nil, expr, time.Unix(0, 0).Add(at))
		require.NoError(t, err)
		vector, err := query.Exec(context.Background()).Vector()
		require.NoError(t, err)
		if len(vector) == 0 {
			active = -step
		}
		active += step
		longest = max(longest, active)
		query.Close()
	}
	return longest
}
