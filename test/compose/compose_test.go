// Package compose_test checks what can be checked of docker-compose.yml without a Docker engine.
package compose_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
)

const root = "../.."

// pinned is a tag that names one release, such as 17.7, 1.32.0 or v3.5.0.
var pinned = regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)?$`)

// ownImage is built from this repository.
const ownImage = "earmark:local"

// monitored is the profile with Prometheus and Grafana.
const monitored = "monitoring"

// load loads everything there is.
func load(t *testing.T) *types.Project {
	t.Helper()
	return loadProfiles(t, monitored)
}

func loadProfiles(t *testing.T, profiles ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{root + "/docker-compose.yml"}, cli.WithWorkingDirectory(root), cli.WithProfiles(profiles))
	require.NoError(t, err)
	project, err := options.LoadProject(context.Background())
	require.NoError(t, err)
	require.NotEmpty(t, project.Services)
	return project
}

// jobs are the services that others wait for to complete. All others run for good.
func jobs(project *types.Project) map[string]bool {
	found := map[string]bool{}
	for _, service := range project.Services {
		for name, dependency := range service.DependsOn {
			if dependency.Condition == types.ServiceConditionCompletedSuccessfully {
				found[name] = true
			}
		}
	}
	return found
}

func TestImagesArePinned(t *testing.T) {
	t.Parallel()
	for name, service := range load(t).Services {
		require.NotContains(t, service.Image, "auto-setup", "%s: that image is deprecated", name)
		if service.Image == ownImage {
			require.NotNil(t, service.Build, name)
			continue
		}
		require.Regexp(t, pinned, service.Image, name)
	}
}

func TestTemporalImagesAreOfOneRelease(t *testing.T) {
	t.Parallel()
	project := load(t)
	_, server, _ := strings.Cut(project.Services["temporal"].Image, ":")
	for _, job := range []string{"temporal-schema", "temporal-namespace"} {
		require.Equal(t, "temporalio/admin-tools:"+server, project.Services[job].Image)
	}
}

func TestPublishedPortsAreOnLoopback(t *testing.T) {
	t.Parallel()
	published := map[string]string{}
	for name, service := range load(t).Services {
		require.NotEqual(t, "host", service.NetworkMode, name)
		for _, port := range service.Ports {
			require.Equal(t, "127.0.0.1", port.HostIP, name)
			published[name] = port.Published
		}
	}
	require.Equal(t, map[string]string{"serve": "8080", "temporal-ui": "8233", "prometheus": "9090", "grafana": "3000"}, published)
}

func TestServicesAreKeptRunningAndWatched(t *testing.T) {
	t.Parallel()
	project := load(t)
	done := jobs(project)
	for name, service := range project.Services {
		if done[name] {
			require.Equal(t, "no", service.Restart, name)
			continue
		}
		require.Equal(t, "unless-stopped", service.Restart, name)
		require.NotNil(t, service.HealthCheck, name)
		require.NotEmpty(t, service.HealthCheck.Test, name)
	}
}

func TestServicesWaitForWhatTheyNeed(t *testing.T) {
	t.Parallel()
	project := load(t)
	done := jobs(project)
	for name, service := range project.Services {
		for dependency, how := range service.DependsOn {
			want := types.ServiceConditionHealthy
			if done[dependency] {
				want = types.ServiceConditionCompletedSuccessfully
			}
			require.Equal(t, want, how.Condition, "%s waits for %s", name, dependency)
			require.True(t, how.Required, "%s waits for %s", name, dependency)
		}
	}
	require.Contains(t, project.Services["serve"].DependsOn, "migrate")
	require.Contains(t, project.Services["worker"].DependsOn, "migrate")
	require.Contains(t, project.Services["migrate"].DependsOn, "temporal-namespace")
	require.Contains(t, project.Services["migrate"].DependsOn, "postgres")
}

// A port that is published asks for keys, whatever its address: nothing switches them off.
func TestEarmarkAsksForKeys(t *testing.T) {
	t.Parallel()
	for name, service := range load(t).Services {
		require.NotContains(t, service.Environment, "EARMARK_WITHOUT_KEYS", name)
		require.NotContains(t, service.Command, "--without-keys", name)
	}
	image, err := os.ReadFile(root + "/Dockerfile")
	require.NoError(t, err)
	require.NotContains(t, string(image), "WITHOUT_KEYS")
	require.NotContains(t, string(image), "without-keys")
}

func TestCommandsOfEarmark(t *testing.T) {
	t.Parallel()
	commands := map[string]string{}
	for name, service := range load(t).Services {
		if service.Image == ownImage {
			require.Empty(t, service.Entrypoint, "%s: the image has one", name)
			commands[name] = strings.Join(service.Command, " ")
		}
	}
	require.Equal(t, map[string]string{"serve": "serve", "worker": "worker", "migrate": "migrate up"}, commands)
}

// What looks after Earmark is there when it is asked for, and only then.
func TestMonitoringIsAProfile(t *testing.T) {
	t.Parallel()
	plain := loadProfiles(t)
	for name, service := range load(t).Services {
		_, always := plain.Services[name]
		require.Equal(t, name != "prometheus" && name != "grafana", always, name)
		if !always {
			require.Equal(t, []string{monitored}, service.Profiles, name)
		}
	}
}

// The pieces are put together by names and ports that are written down in several places.
func TestMonitoringFindsItsWay(t *testing.T) {
	t.Parallel()
	project := load(t)
	read := func(path string) string {
		content, err := os.ReadFile(root + "/" + path)
		require.NoError(t, err)
		return string(content)
	}
	for _, name := range []string{"serve", "worker"} {
		_, port, _ := strings.Cut(*project.Services[name].Environment["EARMARK_OPS_ADDR"], ":")
		require.Contains(t, read("deploy/prometheus/prometheus.yml"), name+":"+port)
		require.Contains(t, strings.Join(project.Services[name].HealthCheck.Test, " "), "health --url http://127.0.0.1:"+port)
	}
	require.Contains(t, read("deploy/grafana/provisioning/datasources/prometheus.yml"), "url: http://prometheus:9090")
	mounts := map[string]string{}
	for _, volume := range project.Services["grafana"].Volumes {
		mounts[volume.Target] = volume.Source
	}
	require.Contains(t, mounts, "/etc/grafana/provisioning")
	require.Contains(t, read("deploy/grafana/provisioning/dashboards/earmark.yml"), "path: /var/lib/grafana/dashboards")
	require.FileExists(t, mounts["/var/lib/grafana/dashboards"]+"/earmark.json")
	require.Equal(t, "/var/lib/grafana/dashboards/earmark.json", *project.Services["grafana"].Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
}

func TestMountedFilesExist(t *testing.T) {
	t.Parallel()
	project := load(t)
	for name, service := range project.Services {
		for _, volume := range service.Volumes {
			switch volume.Type {
			case types.VolumeTypeBind:
				_, err := os.Stat(volume.Source)
				require.NoError(t, err, name)
				require.True(t, volume.ReadOnly, "%s: %s", name, volume.Source)
			default:
				require.Contains(t, project.Volumes, volume.Source, name)
			}
		}
	}
}

// The passwords are written down in more than one place.
func TestTemporalLogsInAsItsOwnRole(t *testing.T) {
	t.Parallel()
	project := load(t)
	value := func(service, key string) string {
		found := project.Services[service].Environment[key]
		require.NotNil(t, found, "%s: %s", service, key)
		return *found
	}
	user, password := value("temporal", "POSTGRES_USER"), value("temporal", "POSTGRES_PWD")
	require.Equal(t, user, value("temporal-schema", "SQL_USER"))
	require.Equal(t, password, value("temporal-schema", "SQL_PASSWORD"))
	require.Equal(t, value("temporal", "DB"), value("temporal-schema", "SQL_PLUGIN"))
	require.NotEqual(t, user, value("postgres", "POSTGRES_USER"))

	script, err := os.ReadFile(root + "/deploy/compose/postgres-init.sql")
	require.NoError(t, err)
	require.Contains(t, string(script), "CREATE ROLE "+user+" LOGIN CREATEDB PASSWORD '"+password+"'")
}

func TestDockerfileIsPinnedAndUnprivileged(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(root + "/Dockerfile")
	require.NoError(t, err)
	stages := map[string]bool{"scratch": true}
	for _, from := range regexp.MustCompile(`(?m)^FROM (\S+)(?: AS (\S+))?$`).FindAllStringSubmatch(string(content), -1) {
		if !stages[from[1]] {
			require.Regexp(t, pinned, from[1])
		}
		stages[from[2]] = true
	}
	require.Regexp(t, `(?m)^USER [1-9]\d*:[1-9]\d*$`, string(content))
}

// Temporal's settings are in one file, which the nodes of TestTemporalCluster read too.
func TestTemporalReadsItsSettings(t *testing.T) {
	t.Parallel()
	const shared = "deploy/compose/temporal-dynamicconfig.yaml"
	temporal := load(t).Services["temporal"]
	read := temporal.Environment["DYNAMIC_CONFIG_FILE_PATH"]
	require.NotNil(t, read)
	var source string
	for _, volume := range temporal.Volumes {
		if volume.Target == *read {
			source = volume.Source
		}
	}
	require.True(t, strings.HasSuffix(source, "/"+shared), "Temporal reads %s from %q", *read, source)
	settings, err := os.ReadFile(root + "/" + shared)
	require.NoError(t, err)
	development, err := os.ReadFile(root + "/internal/devstack/temporal.go")
	require.NoError(t, err)
	for _, partitions := range []string{"matching.numTaskqueueReadPartitions", "matching.numTaskqueueWritePartitions"} {
		require.Contains(t, string(settings), partitions+":\n  - value: 1\n")
		require.Contains(t, string(development), `"`+partitions+`=1"`)
	}
	cluster, err := os.ReadFile(root + "/test/chaos/temporal_test.go")
	require.NoError(t, err)
	require.Contains(t, string(cluster), `"deploy", "compose", "temporal-dynamicconfig.yaml"`)
}
