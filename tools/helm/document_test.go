package helm_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The page for users has every value, the ten lines, and a command for each Secret that they name.
func TestDocument(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "/docs/kubernetes.md")
	require.NoError(t, err)
	page := string(text)
	production, err := os.ReadFile(examples + "production.yaml")
	require.NoError(t, err)
	require.Contains(t, page, "```yaml\n"+string(production)+"```")
	for _, p := range podsOf(objects(t, valuesOf(t, setups["production"]...))) {
		for _, volume := range p.spec.Volumes {
			require.Regexp(t, `create secret (generic|tls) `+volume.Secret.SecretName+` `, page)
		}
	}
	documented := leaves("", valuesOf(t, chartDir+"/values.yaml"))
	require.Greater(t, len(documented), 50)
	for _, value := range documented {
		require.Contains(t, page, "`"+value+"`")
	}
}

// leaves returns the paths of the values that a user sets as one: a reference to a Secret is one.
func leaves(path string, values map[string]any) (paths []string) {
	for name, value := range values {
		full := strings.TrimPrefix(path+"."+name, ".")
		inner, isMap := value.(map[string]any)
		_, isReference := inner["name"]
		switch {
		case !isMap, len(inner) == 0, isReference, slices.Contains([]string{"resources", "podSecurityContext"}, name):
			paths = append(paths, full)
		default:
			paths = append(paths, leaves(full, inner)...)
		}
	}
	slices.Sort(paths)
	return paths
}

// The defaults in the table are those of the chart, where they are a number.
func TestDocumentedDefaults(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "/docs/kubernetes.md")
	require.NoError(t, err)
	for path, row := range map[string]string{
		"settings.graceSeconds":                  "| `settings.graceSeconds` | %v |",
		"settings.admissionDeadlineMilliseconds": "| `settings.admissionDeadlineMilliseconds` | %v |",
		"settings.settleWindowMilliseconds":      "| `settings.settleWindowMilliseconds` | %v |",
		"serve.replicas":                         "| `serve.replicas` | %v |",
		"serve.drainDelaySeconds":                "| `serve.drainDelaySeconds` | %v |",
		"serve.autoscaling.admissionsInFlight":   "| `serve.autoscaling.admissionsInFlight` | %v |",
		"migrate.timeoutSeconds":                 "| `migrate.enabled`, `migrate.timeoutSeconds` | `true`, %v |",
		"worker.replicas":                        "| `worker.enabled`, `worker.replicas` | `false`, %v |",
		"service.port":                           "| `service.type`, `service.port`, `service.annotations` | `ClusterIP`, %v,",
	} {
		var value any = valuesOf(t, chartDir+"/values.yaml")
		for name := range strings.SplitSeq(path, ".") {
			inner, ok := value.(map[string]any)
			require.True(t, ok, path)
			value = inner[name]
		}
		require.Contains(t, string(text), fmt.Sprintf(row, value), path)
	}
}
