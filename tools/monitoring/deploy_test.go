package monitoring_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// Names of the files, from the module's root.
const (
	alertsFile    = "deploy/prometheus/alerts.yml"
	recordingFile = "deploy/prometheus/recording.yml"
	dashboardFile = "deploy/grafana/dashboards/earmark.json"
)

var promQL = parser.NewParser(parser.Options{})

// readRules reads the alerts and recording rules, checked as Prometheus checks them when
// it starts.
func readRules(root string) (alerts, recording []rulefmt.Rule, err error) {
	for _, file := range []string{alertsFile, recordingFile} {
		groups, errs := rulefmt.ParseFile(filepath.Join(root, file), false, model.UTF8Validation, promQL, slog.New(slog.DiscardHandler))
		if len(errs) > 0 {
			return nil, nil, errors.Join(errs...)
		}
		for _, group := range groups.Groups {
			for _, rule := range group.Rules {
				if rule.Alert != "" {
					alerts = append(alerts, rule)
				} else {
					recording = append(recording, rule)
				}
			}
		}
	}
	return alerts, recording, nil
}

// panel is what of a dashboard's panel can be checked without Grafana.
type panel struct {
	ID          int    `json:"id"`
	Type        string `json:"type"`
	Title       string `json:"title"`
	GridPos     box    `json:"gridPos"`
	Datasource  source `json:"datasource"`
	FieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
	Targets []struct {
		RefID      string `json:"refId"`
		Expr       string `json:"expr"`
		Datasource source `json:"datasource"`
	} `json:"targets"`
}

// box is where a panel is, in a grid 24 wide.
type box struct{ X, Y, W, H int }

// source is a data source.
type source struct{ Type, UID string }

// dashboard is Grafana's.
type dashboard struct {
	UID        string  `json:"uid"`
	Title      string  `json:"title"`
	Panels     []panel `json:"panels"`
	Templating struct {
		List []struct{ Name, Type, Query string } `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []struct{ Expr string } `json:"list"`
	} `json:"annotations"`
}

// readDashboard reads the dashboard.
func readDashboard(root string) (d dashboard, err error) {
	content, err := os.ReadFile(filepath.Join(root, dashboardFile))
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(content, &d)
}

// queries are the dashboard's, with Grafana's own variables filled in.
func (d dashboard) queries() []string {
	var queries []string
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			queries = append(queries, strings.ReplaceAll(target.Expr, "$__rate_interval", "1m"))
		}
	}
	for _, annotation := range d.Annotations.List {
		queries = append(queries, annotation.Expr)
	}
	return queries
}

// metricsOf are the names that a query reads, sorted.
func metricsOf(query string) ([]string, error) {
	expr, err := promQL.ParseExpr(query)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	var names []string
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			names = append(names, selector.Name)
		}
		return nil
	})
	slices.Sort(names)
	return slices.Compact(names), nil
}
