// Package monitoring_test checks what deploy/ holds for Prometheus and Grafana. That
// its metrics exist is checked where there is something to scrape, in test/e2e.
package monitoring_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

const root = "../.."

const runbook = "https://github.com/earmark-dev/earmark/blob/main/docs/runbook.md"

func alertNamed(t *testing.T, name string) rulefmt.Rule {
	t.Helper()
	alerts, _, err := readRules(root)
	require.NoError(t, err)
	for _, alert := range alerts {
		if alert.Alert == name {
			return alert
		}
	}
	require.FailNow(t, "there is no such alert", name)
	return rulefmt.Rule{}
}

// Whoever is woken has to learn how bad it is, what it is, and what to do.
func TestAlertsSayWhatToDo(t *testing.T) {
	t.Parallel()
	alerts, recording, err := readRules(root)
	require.NoError(t, err)
	require.NotEmpty(t, recording)
	seen := map[string]bool{}
	for _, alert := range alerts {
		require.False(t, seen[alert.Alert], "%s is there twice", alert.Alert)
		seen[alert.Alert] = true
		require.Contains(t, []string{"critical", "warning"}, alert.Labels["severity"], alert.Alert)
		require.NotEmpty(t, alert.Annotations["summary"], alert.Alert)
		require.Equal(t, runbook+"#"+strings.ToLower(alert.Alert), alert.Annotations["runbook_url"])
		require.Positive(t, alert.For, "%s would fire on a single scrape", alert.Alert)
	}
}

// The anchor that an alert links to is that of a heading.
func TestAlertsHaveTheirPageInTheRunbook(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs/runbook.md"))
	require.NoError(t, err)
	alerts, _, err := readRules(root)
	require.NoError(t, err)
	for _, alert := range alerts {
		require.Regexp(t, `(?m)^#+ `+alert.Alert+`$`, string(text))
	}
}

func TestDashboardIsWhole(t *testing.T) {
	t.Parallel()
	dashboard, err := readDashboard(root)
	require.NoError(t, err)
	require.Equal(t, "earmark", dashboard.UID)
	require.Equal(t, "Earmark", dashboard.Title)
	require.Len(t, dashboard.Templating.List, 1)
	require.Equal(t, "datasource", dashboard.Templating.List[0].Name)
	ids, titles := map[int]bool{}, map[string]bool{}
	taken := map[[2]int]string{}
	for _, panel := range dashboard.Panels {
		require.False(t, ids[panel.ID], "%s has the id of another", panel.Title)
		require.False(t, titles[panel.Title], "%s is there twice", panel.Title)
		ids[panel.ID], titles[panel.Title] = true, true
		require.LessOrEqual(t, panel.GridPos.X+panel.GridPos.W, 24, panel.Title)
		for x := range panel.GridPos.W {
			for y := range panel.GridPos.H {
				at := [2]int{panel.GridPos.X + x, panel.GridPos.Y + y}
				require.Empty(t, taken[at], "%s lies over it", panel.Title)
				taken[at] = panel.Title
			}
		}
		if panel.Type == "row" {
			continue
		}
		require.Contains(t, []string{"stat", "timeseries"}, panel.Type, panel.Title)
		require.NotEmpty(t, panel.Targets, panel.Title)
		require.NotEmpty(t, panel.FieldConfig.Defaults.Unit, panel.Title)
		prometheus := source{Type: "prometheus", UID: "${datasource}"}
		require.Equal(t, prometheus, panel.Datasource, panel.Title)
		for _, target := range panel.Targets {
			require.Equal(t, prometheus, target.Datasource, panel.Title)
		}
	}
	for _, query := range dashboard.queries() {
		metrics, err := metricsOf(query)
		require.NoError(t, err)
		require.NotEmpty(t, metrics, query)
	}
}

// foreign are the metrics that Prometheus makes itself.
var foreign = []string{"up", "ALERTS"}

// What test/e2e looks for in a scrape are all names there are, but for what
// Prometheus makes itself or is recorded.
func TestMetricsAreFoundByTheirNames(t *testing.T) {
	t.Parallel()
	alerts, recording, err := readRules(root)
	require.NoError(t, err)
	dashboard, err := readDashboard(root)
	require.NoError(t, err)
	queries := dashboard.queries()
	known := slices.Clone(foreign)
	for _, rule := range append(alerts, recording...) {
		queries = append(queries, rule.Expr)
		if rule.Record != "" {
			known = append(known, rule.Record)
		}
	}
	scraped := regexp.MustCompile(`^(earmark|temporal|go|process)_[a-z0-9_]+$`) // as in test/e2e
	for _, query := range queries {
		metrics, err := metricsOf(query)
		require.NoError(t, err)
		for _, name := range metrics {
			require.True(t, slices.Contains(known, name) || scraped.MatchString(name), "%s in %s", name, query)
		}
	}
}

// The scrape's job is the one that the alerts and the dashboard name, and every rule
// file is loaded.
func TestScrapeConfig(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(filepath.Join(root, "deploy/prometheus/prometheus.yml"))
	require.NoError(t, err)
	var config struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName       string `yaml:"job_name"`
			StaticConfigs []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	require.NoError(t, yaml.Unmarshal(content, &config))
	require.ElementsMatch(t, []string{filepath.Base(alertsFile), filepath.Base(recordingFile)}, config.RuleFiles)
	require.Len(t, config.ScrapeConfigs, 1)
	job := config.ScrapeConfigs[0].JobName
	require.Equal(t, []string{"serve:9464", "worker:9464"}, config.ScrapeConfigs[0].StaticConfigs[0].Targets)
	for _, file := range []string{alertsFile, dashboardFile} {
		text, err := os.ReadFile(filepath.Join(root, file))
		require.NoError(t, err)
		for _, named := range regexp.MustCompile(`job=\\?"([^"\\]*)\\?"`).FindAllStringSubmatch(string(text), -1) {
			require.Equal(t, job, named[1], file)
		}
	}
}
