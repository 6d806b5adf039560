// Package helm_test checks deploy/helm with Helm's own engine and linter, and against the types of Kubernetes and of the
// Prometheus operator.
package helm_test

import (
	"flag"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	serializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	root      = "../.."
	chartDir  = root + "/deploy/helm/earmark"
	examples  = root + "/deploy/helm/examples/"
	release   = "earmark"
	namespace = "billing"
)

// setups are the values files of each set-up that is rendered, the first below the next.
var setups = map[string][]string{
	"production":       {examples + "production.yaml"},
	"temporal-cloud":   {examples + "production.yaml", examples + "temporal-cloud.yaml"},
	"managed-postgres": {examples + "production.yaml", examples + "managed-postgres.yaml"},
	"pgbouncer":        {examples + "production.yaml", examples + "pgbouncer.yaml"},
	"everything":       {examples + "production.yaml", "testdata/everything.yaml"},
	"minimal":          {"testdata/minimal.yaml"},
}

func TestMain(m *testing.M) {
	// Helm logs each of the chart's symbolic links.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// valuesOf reads values files, of which each overrides those before.
func valuesOf(t *testing.T, files ...string) map[string]any {
	t.Helper()
	values := map[string]any{}
	for _, name := range files {
		file, err := os.Open(name)
		require.NoError(t, err)
		more, err := loader.LoadValues(file)
		require.NoError(t, err, name)
		require.NoError(t, file.Close())
		values = loader.MergeMaps(values, more)
	}
	return values
}

// with reads values from text, on top of those of the production set-up.
func with(t *testing.T, text string) map[string]any {
	t.Helper()
	more, err := loader.LoadValues(strings.NewReader(text))
	require.NoError(t, err)
	return loader.MergeMaps(valuesOf(t, setups["production"]...), more)
}

// render does what helm template does. It returns the text of each template that makes objects.
func render(values map[string]any) (map[string]string, error) {
	chart, err := loader.LoadDir(chartDir)
	if err != nil {
		return nil, err
	}
	options := common.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(chart, values, options, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Render(chart, all)
	maps.DeleteFunc(rendered, func(name, content string) bool {
		return !strings.HasSuffix(name, ".yaml") || strings.TrimSpace(content) == ""
	})
	return rendered, err
}

// objects renders the chart and decodes each object; a field that its type does not have is a failure.
func objects(t *testing.T, values map[string]any) []runtime.Object {
	t.Helper()
	rendered, err := render(values)
	require.NoError(t, err)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, autoscalingv2.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme,
		networkingv1.AddToScheme, policyv1.AddToScheme, monitoringv1.AddToScheme,
	} {
		require.NoError(t, add(scheme))
	}
	decoder := serializer.NewSerializerWithOptions(serializer.DefaultMetaFactory, scheme, scheme, serializer.SerializerOptions{Yaml: true, Strict: true})
	var decoded []runtime.Object
	for _, name := range slices.Sorted(maps.Keys(rendered)) {
		for document := range strings.SplitSeq("\n"+rendered[name], "\n---\n") {
			if strings.TrimSpace(document) == "" {
				continue
			}
			object, _, err := decoder.Decode([]byte(document), nil, nil)
			require.NoError(t, err, "%s:\n%s", name, document)
			decoded = append(decoded, object)
		}
	}
	return decoded
}

// only returns the objects of one type.
func only[T runtime.Object](all []runtime.Object) (of []T) {
	for _, object := range all {
		if typed, ok := object.(T); ok {
			of = append(of, typed)
		}
	}
	return of
}

func TestLint(t *testing.T) {
	t.Parallel()
	for name, files := range setups {
		result := lint.RunAll(chartDir, valuesOf(t, files...), namespace)
		for _, message := range result.Messages {
			// An icon is recommended, not needed.
			require.LessOrEqual(t, message.Severity, support.InfoSev, "%s: %s", name, message)
		}
	}
}

// What a set-up renders to is seen in the golden file, and in the difference of a change to it. The alerts are left out:
// they have a source of their own.
func TestGolden(t *testing.T) {
	t.Parallel()
	for name, files := range setups {
		rendered, err := render(valuesOf(t, files...))
		require.NoError(t, err, name)
		var text strings.Builder
		for _, template := range slices.Sorted(maps.Keys(rendered)) {
			content, _, _ := strings.Cut(rendered[template], "    - name: earmark-alerts\n")
			text.WriteString("---\n# " + template + "\n" + strings.TrimSpace(content) + "\n")
		}
		golden := filepath.Join("testdata", name+".golden")
		if *update {
			require.NoError(t, os.WriteFile(golden, []byte(text.String()), 0o600))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		wantLines, lines := strings.Split(string(want), "\n"), strings.Split(text.String(), "\n")
		for i := range min(len(wantLines), len(lines)) {
			require.Equal(t, wantLines[i], lines[i], "%s:%d: run go test -C tools/helm -update", golden, i+1)
		}
		require.Len(t, lines, len(wantLines), golden)
	}
}

// Ten lines of values are enough for production: two servers that are spread and protected, TLS, encrypted histories,
// an account for the schema alone, alerts, and a network policy.
func TestTenLinesMakeProduction(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(examples + "production.yaml")
	require.NoError(t, err)
	require.Len(t, strings.Split(strings.TrimSpace(string(text)), "\n"), 10)
	all := objects(t, valuesOf(t, setups["production"]...))
	kinds := map[string]int{}
	for _, object := range all {
		kinds[object.GetObjectKind().GroupVersionKind().Kind]++
	}
	require.Equal(t, map[string]int{
		"Deployment": 1, "Job": 1, "NetworkPolicy": 1, "PodDisruptionBudget": 1, "PrometheusRule": 1, "Service": 2, "ServiceMonitor": 1,
	}, kinds)
	require.Equal(t, int32(2), *only[*appsv1.Deployment](all)[0].Spec.Replicas)
	secrets := map[string][]string{}
	for _, p := range podsOf(all) {
		for _, volume := range p.spec.Volumes {
			secrets[p.component] = append(secrets[p.component], volume.Secret.SecretName)
		}
	}
	require.Equal(t, map[string][]string{
		"serve": {"earmark-database", "earmark-payload-keys", "earmark-tls"}, "migrate": {"earmark-database-owner"},
	}, secrets)
}

// The alerts have one source.
func TestRulesAreThoseOfPrometheus(t *testing.T) {
	t.Parallel()
	rules := only[*monitoringv1.PrometheusRule](objects(t, valuesOf(t, setups["production"]...)))
	require.Len(t, rules, 1)
	var want []any
	for _, name := range []string{"alerts.yml", "recording.yml"} {
		groups, ok := valuesOf(t, root+"/deploy/prometheus/"+name)["groups"].([]any)
		require.True(t, ok)
		want = append(want, groups...)
	}
	rendered, err := render(valuesOf(t, setups["production"]...))
	require.NoError(t, err)
	_, text, found := strings.Cut(rendered["earmark/templates/monitoring.yaml"], "kind: PrometheusRule\n")
	require.True(t, found)
	got, err := loader.LoadValues(strings.NewReader(text))
	require.NoError(t, err)
	spec, ok := got["spec"].(map[string]any)
	require.True(t, ok)
	require.Equal(t, want, spec["groups"])
	require.Equal(t, monitoring.GroupName, rules[0].GroupVersionKind().Group)
}

func TestBadValues(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]struct {
		values string
		says   []string // the value, and what is allowed
	}{
		"no database":            {"database: {urlSecret: {name: ''}}", []string{"/database/urlSecret/name", "want 1"}},
		"no Temporal":            {"temporal: {address: ''}", []string{"/temporal/address", "pattern"}},
		"a port missing":         {"temporal: {address: temporal.internal}", []string{"/temporal/address", "pattern"}},
		"an unknown value":       {"database: {url: 'postgres://earmark:secret@db/earmark'}", []string{"/database", "'url' not allowed"}},
		"an unknown part":        {"sever: {replicas: 3}", []string{"'sever' not allowed"}},
		"a log level":            {"settings: {logLevel: verbose}", []string{"/settings/logLevel", "'debug', 'info', 'warn', 'error'"}},
		"no replicas":            {"serve: {replicas: 0}", []string{"/serve/replicas", "want 1"}},
		"replicas as text":       {"serve: {replicas: many}", []string{"/serve/replicas", "want integer"}},
		"a drain too long":       {"serve: {drainDelaySeconds: 301}", []string{"/serve/drainDelaySeconds", "want 300"}},
		"a pull policy":          {"image: {pullPolicy: Sometimes}", []string{"/image/pullPolicy", "'Always', 'IfNotPresent', 'Never'"}},
		"a digest":               {"image: {digest: latest}", []string{"/image/digest", "sha256:"}},
		"a host with a port":     {"settings: {allowedHosts: ['earmark.example.com:443']}", []string{"/settings/allowedHosts/0", "pattern"}},
		"a Service":              {"service: {type: ExternalName}", []string{"/service/type", "'ClusterIP', 'NodePort', 'LoadBalancer'"}},
		"a spread":               {"topologySpread: maybe", []string{"/topologySpread", "'ScheduleAnyway', 'DoNotSchedule'"}},
		"no disruption at all":   {"serve: {podDisruptionBudget: {maxUnavailable: 0}}", []string{"/serve/podDisruptionBudget/maxUnavailable", "want 1"}},
		"more than it runs":      {"serve: {autoscaling: {admissionsInFlight: 33}}", []string{"/serve/autoscaling/admissionsInFlight", "want 32"}},
		"no worker":              {"serve: {worker: false}", []string{"serve.worker and worker.enabled", "set one of them to true"}},
		"a minimum past maximum": {"serve: {autoscaling: {enabled: true, minReplicas: 9}}", []string{"minReplicas is 9", "maxReplicas is 8"}},
	} {
		_, err := render(with(t, bad.values))
		require.Error(t, err, name)
		for _, part := range bad.says {
			require.ErrorContains(t, err, part, name)
		}
	}
}

// The metric that the HPA asks for is the one that Prometheus' adapter makes, from one that the alerts know.
func TestAutoscalingHasItsMetric(t *testing.T) {
	t.Parallel()
	scalers := only[*autoscalingv2.HorizontalPodAutoscaler](objects(t, valuesOf(t, setups["everything"]...)))
	require.Len(t, scalers, 1)
	var adapter struct {
		Rules struct {
			Custom []struct {
				SeriesQuery  string
				Name         struct{ As string }
				MetricsQuery string
			}
		}
	}
	text, err := os.ReadFile(examples + "prometheus-adapter.yaml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &adapter))
	require.Len(t, adapter.Rules.Custom, 1)
	rule := adapter.Rules.Custom[0]
	require.Equal(t, rule.Name.As, scalers[0].Spec.Metrics[0].Pods.Metric.Name)
	require.Equal(t, "sum(rate(<<.Series>>{<<.LabelMatchers>>}[1m])) by (<<.GroupBy>>)", rule.MetricsQuery)
	histogram, ok := strings.CutSuffix(strings.Split(rule.SeriesQuery, "{")[0], "_sum")
	require.True(t, ok)
	alerts, err := os.ReadFile(root + "/deploy/prometheus/alerts.yml")
	require.NoError(t, err)
	require.Contains(t, string(alerts), histogram+"_bucket")
}
