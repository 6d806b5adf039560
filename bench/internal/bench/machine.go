package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
)

// Machine is where a run took place.
type Machine struct {
	Cores        int    `json:"cores"`
	CPU          string `json:"cpu"`
	MemoryBytes  int64  `json:"memory_bytes"`
	OS           string `json:"os"`
	Kernel       string `json:"kernel"`
	Go           string `json:"go"`
	Earmark      string `json:"earmark"`
	Postgres     string `json:"postgres"`
	Fsync        string `json:"fsync"`
	SyncCommit   string `json:"synchronous_commit"`
	SharedBuffer string `json:"shared_buffers"`
	Temporal     string `json:"temporal"`
	Persistence  string `json:"temporal_persistence"`
}

// describe returns what is known; what the platform does not report stays empty.
func describe(ctx context.Context, pool *pgxpool.Pool, temporal client.Client, ownTemporal bool, version string) (Machine, error) {
	m := Machine{
		Cores: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), Earmark: version,
		CPU: firstValue("/proc/cpuinfo", "model name"), Persistence: "of the Temporal that runs already",
	}
	if ownTemporal {
		m.Persistence = "development server, SQLite file"
	}
	if kilobytes, _, found := strings.Cut(firstValue("/proc/meminfo", "MemTotal"), " "); found {
		if n, err := strconv.ParseInt(kilobytes, 10, 64); err == nil {
			m.MemoryBytes = n << 10
		}
	}
	if name := strings.Trim(firstValue("/etc/os-release", "PRETTY_NAME"), `"`); name != "" {
		m.OS = name + ", " + runtime.GOARCH
	}
	if release, err := exec.CommandContext(ctx, "uname", "-r").Output(); err == nil {
		m.Kernel = strings.TrimSpace(string(release))
	}
	for name, target := range map[string]*string{
		"server_version": &m.Postgres, "fsync": &m.Fsync, "synchronous_commit": &m.SyncCommit, "shared_buffers": &m.SharedBuffer,
	} {
		if err := pool.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(target); err != nil {
			return m, fmt.Errorf("ask Postgres for %s: %w", name, err)
		}
	}
	info, err := temporal.WorkflowService().GetSystemInfo(ctx, &workflowservice.GetSystemInfoRequest{})
	if err != nil {
		return m, fmt.Errorf("ask Temporal for its version: %w", err)
	}
	m.Temporal = info.GetServerVersion()
	return m, nil
}

// lines describes the machine in two lines.
func (m Machine) lines() []string {
	memory := ""
	if m.MemoryBytes > 0 {
		memory = fmt.Sprintf(", %.0f GiB memory", float64(m.MemoryBytes)/(1<<30))
	}
	return []string{
		fmt.Sprintf("%d cores (%s)%s, %s, kernel %s", m.Cores, orUnknown(m.CPU), memory, m.OS, orUnknown(m.Kernel)),
		fmt.Sprintf("earmark %s, %s; Postgres %s (fsync %s, synchronous_commit %s, shared_buffers %s); Temporal %s (%s)",
			m.Earmark, m.Go, m.Postgres, m.Fsync, m.SyncCommit, m.SharedBuffer, orUnknown(m.Temporal), m.Persistence),
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// firstValue finds a "key : value" or "key=value" line of a file; "" without one.
func firstValue(path, key string) string {
	file, err := os.Open(filepath.Clean(path))
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		name, value, found := strings.Cut(scanner.Text(), ":")
		if !found {
			name, value, found = strings.Cut(scanner.Text(), "=")
		}
		if found && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
