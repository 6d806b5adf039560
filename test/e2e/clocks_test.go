//go:build unix && slow

package e2e_test

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/stack"
)

// skewVariable is how far ahead the clock of a skewed process is, in seconds.
const skewVariable = "CLOCK_SKEW_SECONDS"

// skewed builds earmark with a clock that an environment variable sets ahead. Go asks
// the kernel for the time by itself, so the standard library is built with another
// time.Now, and everything else anew with it.
func skewed(t *testing.T) string {
	t.Helper()
	source := filepath.Join(runtime.GOROOT(), "src", "time") //nolint:staticcheck // where the go command on the path has its library
	const now = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {"
	return stack.Variant(t,
		stack.Edit{File: filepath.Join(source, "time.go"), Old: now, New: strings.Replace(now, "runtimeNow()\n", "runtimeNow()\n\tsec += skew\n", 1)},
		stack.Edit{File: filepath.Join(source, "skew.go"), New: "package time\n\nimport \"syscall\"\n\nvar skew = func() int64 {\n" +
			"\ttext, _ := syscall.Getenv(\"" + skewVariable + "\")\n\tseconds, _ := atoi(text)\n\treturn int64(seconds)\n}()\n"})
}

// The clocks of an API and of a worker are minutes ahead of Postgres', of Temporal's
// and of each other's, or behind: limits, leases and deadlines are as they should be.
func TestClocksOfProcessesApart(t *testing.T) {
	t.Parallel()
	binary := skewed(t)
	for name, c := range map[string]struct{ api, worker time.Duration }{
		"API ahead, worker behind": {10 * time.Minute, -10 * time.Minute},
		"API behind, worker ahead": {-10 * time.Minute, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stack.New(t, stack.Options{})
			s.Use(binary)
			s.Setenv(skewVariable, seconds(c.api))
			server := s.Serve("--without-worker").Ready()
			s.Setenv(skewVariable, seconds(c.worker))
			worker := s.Worker()
			worker.AwaitLog("Started Worker")
			b := &env{Stack: s, api: api{t, server.URL}, server: server}

			date, err := http.ParseTime(b.do("GET", "/healthz", "").header.Get("Date"))
			require.NoError(t, err)
			require.InDelta(t, c.api.Seconds(), time.Until(date).Seconds(), 30, "the API's clock")
			first, _, _ := strings.Cut(worker.Log(), "\n")
			var line struct{ Time time.Time }
			require.NoError(t, json.Unmarshal([]byte(first), &line), "%s", first)
			require.InDelta(t, c.worker.Seconds(), time.Until(line.Time).Seconds(), 30, "the worker's clock")
			b.keepsTime(0)
			b.reconcile("earmark-reconcile")
		})
	}
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }
