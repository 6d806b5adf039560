package helm_test

import (
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// pod is the template of a Deployment or a Job.
type pod struct {
	component string
	labels    map[string]string
	selector  map[string]string // nil for a Job
	spec      corev1.PodSpec
}

func (p pod) container() corev1.Container { return p.spec.Containers[0] }

func podsOf(all []runtime.Object) (pods []pod) {
	add := func(template corev1.PodTemplateSpec, selector map[string]string) {
		pods = append(pods, pod{template.Labels["app.kubernetes.io/component"], template.Labels, selector, template.Spec})
	}
	for _, object := range all {
		switch workload := object.(type) {
		case *appsv1.Deployment:
			add(workload.Spec.Template, workload.Spec.Selector.MatchLabels)
		case *batchv1.Job:
			add(workload.Spec.Template, nil)
		}
	}
	return pods
}

// selects reports whether labels have all of a selector.
func selects(selector, labels map[string]string) bool {
	for name, value := range selector {
		if labels[name] != value {
			return false
		}
	}
	return len(selector) > 0
}

// everySetup yields the objects of every set-up, and logs its name.
func everySetup(t *testing.T) iter.Seq[[]runtime.Object] {
	t.Helper()
	return func(yield func([]runtime.Object) bool) {
		for _, name := range slices.Sorted(maps.Keys(setups)) {
			t.Log("set-up " + name)
			if !yield(objects(t, valuesOf(t, setups[name]...))) {
				return
			}
		}
	}
}

// No pod has more rights than it needs.
func TestPodsAreRestricted(t *testing.T) {
	t.Parallel()
	for all := range everySetup(t) {
		for _, p := range podsOf(all) {
			require.True(t, *p.spec.SecurityContext.RunAsNonRoot, p.component)
			require.Positive(t, *p.spec.SecurityContext.RunAsUser, p.component)
			require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, p.spec.SecurityContext.SeccompProfile.Type, p.component)
			require.False(t, *p.spec.AutomountServiceAccountToken, p.component)
			require.False(t, p.spec.HostNetwork || p.spec.HostPID || p.spec.HostIPC, p.component)
			require.Len(t, p.spec.Containers, 1, p.component)
			security := p.container().SecurityContext
			require.True(t, *security.ReadOnlyRootFilesystem, p.component)
			require.False(t, *security.AllowPrivilegeEscalation, p.component)
			require.Equal(t, []corev1.Capability{"ALL"}, security.Capabilities.Drop, p.component)
			require.NotEmpty(t, p.container().Resources.Requests, p.component)
			require.Contains(t, p.container().Resources.Limits, corev1.ResourceMemory, p.component)
		}
	}
}

// Every secret is a reference, and its file is where the variable says.
func TestSecretsAreReferences(t *testing.T) {
	t.Parallel()
	for all := range everySetup(t) {
		require.Empty(t, only[*corev1.Secret](all))
		for _, p := range podsOf(all) {
			files, used := filesOf(t, p), map[string]bool{}
			seen := map[string]bool{}
			for _, variable := range p.container().Env {
				require.False(t, seen[variable.Name], "%s: %s is set twice", p.component, variable.Name)
				seen[variable.Name] = true
				if variable.Name == "TEMPORAL_API_KEY" {
					require.Empty(t, variable.Value)
					require.NotNil(t, variable.ValueFrom.SecretKeyRef)
				}
				if strings.HasPrefix(variable.Value, "/") {
					require.Contains(t, files, variable.Value, "%s: %s", p.component, variable.Name)
					used[path.Dir(variable.Value)] = true
				}
			}
			require.Len(t, used, len(p.spec.Volumes), "%s: a volume that no variable names a file of", p.component)
			require.True(t, seen["EARMARK_DATABASE_URL_FILE"], p.component)
		}
	}
}

// filesOf returns the paths of the files that a pod mounts.
func filesOf(t *testing.T, p pod) (files []string) {
	t.Helper()
	mounts := map[string]string{}
	for _, mount := range p.container().VolumeMounts {
		require.True(t, mount.ReadOnly, mount.Name)
		mounts[mount.Name] = mount.MountPath
	}
	require.Len(t, mounts, len(p.spec.Volumes), p.component)
	for _, volume := range p.spec.Volumes {
		require.Contains(t, mounts, volume.Name, "%s: a volume that is not mounted", p.component)
		var items []corev1.KeyToPath
		switch {
		case volume.ConfigMap != nil:
			items = volume.ConfigMap.Items
		case volume.Secret != nil:
			require.Equal(t, int32(0o440), *volume.Secret.DefaultMode, "others may not read %s", volume.Name)
			if items = volume.Secret.Items; items == nil { // of the type kubernetes.io/tls
				items = []corev1.KeyToPath{{Path: corev1.TLSCertKey}, {Path: corev1.TLSPrivateKeyKey}}
			}
		}
		for _, item := range items {
			files = append(files, path.Join(mounts[volume.Name], item.Path))
		}
	}
	return files
}

// Whatever selects pods finds those that it means, and the ports that they have.
func TestSelectorsFindTheirPods(t *testing.T) {
	t.Parallel()
	for all := range everySetup(t) {
		pods := podsOf(all)
		found := func(selector map[string]string) (components []string) {
			for _, p := range pods {
				if selects(selector, p.labels) {
					components = append(components, p.component)
				}
			}
			slices.Sort(components)
			return components
		}
		var everyone, running []string
		for _, p := range pods {
			everyone = append(everyone, p.component)
			if p.selector != nil {
				running = append(running, p.component)
				require.Equal(t, []string{p.component}, found(p.selector))
				require.Len(t, p.spec.TopologySpreadConstraints, 2)
				for _, spread := range p.spec.TopologySpreadConstraints {
					require.Equal(t, []string{p.component}, found(spread.LabelSelector.MatchLabels))
				}
			}
		}
		slices.Sort(everyone)
		for _, budget := range only[*policyv1.PodDisruptionBudget](all) {
			require.Equal(t, []string{budget.Labels["app.kubernetes.io/component"]}, found(budget.Spec.Selector.MatchLabels))
		}
		require.Len(t, only[*policyv1.PodDisruptionBudget](all), len(running))
		for _, policy := range only[*networkingv1.NetworkPolicy](all) {
			require.Equal(t, everyone, found(policy.Spec.PodSelector.MatchLabels))
			require.Len(t, policy.Spec.PolicyTypes, 2)
		}
		for _, service := range only[*corev1.Service](all) {
			wanted := map[string][]string{"serve": {"serve"}, "ops": everyone}[service.Labels["app.kubernetes.io/component"]]
			require.Equal(t, wanted, found(service.Spec.Selector), service.Name)
			target := service.Spec.Ports[0].TargetPort.StrVal
			for _, p := range pods {
				if selects(service.Spec.Selector, p.labels) && p.selector != nil {
					require.True(t, hasPort(p, target), "%s: %s has no port %s", service.Name, p.component, target)
				}
			}
		}
		for _, scaler := range only[*autoscalingv2.HorizontalPodAutoscaler](all) {
			serve := only[*appsv1.Deployment](all)[0]
			require.Equal(t, serve.Name, scaler.Spec.ScaleTargetRef.Name)
			require.Nil(t, serve.Spec.Replicas, "an upgrade would undo the scaling")
		}
	}
}

func hasPort(p pod, name string) bool {
	return slices.ContainsFunc(p.container().Ports, func(port corev1.ContainerPort) bool { return port.Name == name })
}

// A process listens on the ports that the pod declares, its probes ask there, and it has 30 s to stop once it is drained.
func TestProbesAndStopping(t *testing.T) {
	t.Parallel()
	for all := range everySetup(t) {
		for _, p := range podsOf(all) {
			if p.selector == nil {
				require.Equal(t, corev1.RestartPolicyNever, p.spec.RestartPolicy)
				continue
			}
			env := environment(p)
			require.True(t, hasPort(p, "ops"))
			require.Equal(t, ":9464", env["EARMARK_OPS_ADDR"])
			require.Equal(t, "/healthz", p.container().LivenessProbe.HTTPGet.Path)
			require.Equal(t, "/readyz", p.container().ReadinessProbe.HTTPGet.Path)
			for _, probe := range []*corev1.Probe{p.container().LivenessProbe, p.container().ReadinessProbe} {
				require.Equal(t, intstr.FromString("ops"), probe.HTTPGet.Port)
			}
			require.Less(t, p.container().ReadinessProbe.PeriodSeconds*p.container().ReadinessProbe.FailureThreshold, int32(10), "longer than the drain delay")
			require.Equal(t, p.component == "serve", hasPort(p, "api"))
			require.Equal(t, int64(40), *p.spec.TerminationGracePeriodSeconds)
		}
	}
	serve := only[*appsv1.Deployment](objects(t, with(t, "serve: {drainDelaySeconds: 60}")))[0]
	require.Equal(t, int64(90), *serve.Spec.Template.Spec.TerminationGracePeriodSeconds)
}

// environment returns the variables of a pod whose values are not references.
func environment(p pod) map[string]string {
	env := map[string]string{}
	for _, variable := range p.container().Env {
		if variable.ValueFrom == nil {
			env[variable.Name] = variable.Value
		}
	}
	return env
}

// The hook runs before the pods of a release, and so before anything else of it exists.
func TestMigrateIsAHook(t *testing.T) {
	t.Parallel()
	for all := range everySetup(t) {
		hooks := 0
		for _, object := range all {
			meta, ok := object.(metav1.Object)
			require.True(t, ok)
			require.Equal(t, namespace, meta.GetNamespace(), meta.GetName())
			if meta.GetAnnotations()["helm.sh/hook"] != "" {
				hooks++
				require.Equal(t, "pre-install,pre-upgrade", meta.GetAnnotations()["helm.sh/hook"])
			}
		}
		require.Equal(t, 1, hooks)
		job := only[*batchv1.Job](all)[0]
		require.Equal(t, []string{"migrate", "up"}, job.Spec.Template.Spec.Containers[0].Args)
	}
}
