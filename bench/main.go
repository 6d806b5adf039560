// Command earmark-bench measures Earmark beside the floors of Temporal and Postgres, and beside
// the alternatives. It is no part of the product: it runs an earmark that is built already.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	temporallog "go.temporal.io/sdk/log"

	"github.com/earmark-dev/earmark/bench/internal/bench"
)

// version is set by the linker, see the Makefile.
var version = "dev"

const (
	exitFailed = 1
	exitUsage  = 2 // wrong flags: nothing was done
)

// usageError marks what the caller wrote wrongly.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newBench().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "earmark-bench:", err)
	var wrong usageError
	if errors.As(err, &wrong) {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailed)
}

// benchSettings are the flags.
type benchSettings struct {
	bench.Options
	program  string
	base     string
	rows     []string
	json     string
	markdown string
	plot     string

	plainProxy string
}

func newBench() *cobra.Command {
	b := &benchSettings{}
	names, about, defaults := bench.ScenarioNames()
	var list strings.Builder
	for _, name := range names {
		fmt.Fprintf(&list, "\n  %-12s %s", name, about(name))
	}
	cmd := &cobra.Command{
		Use:           "earmark-bench",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Short:         "Measure Earmark beside the floors of Temporal and Postgres, and beside the alternatives",
		Long: `Measure Earmark beside the floors of Temporal and Postgres, and beside the
alternatives: all of them in turns on the same Temporal and Postgres, which are
started for this in a temporary directory, with fsync. What counts are ratios,
told as median and spread over rounds, and compared with the aims.

The whole takes about a quarter of an hour, and the machine should do nothing
else. --quick takes seconds, and shows only that everything works.

Scenarios:` + list.String(),
		Example: `  earmark-bench
  earmark-bench --scenario paths,admission --rounds 10
  earmark-bench --scenario growth --rows 10000,1000000,10000000
  earmark-bench --json bench.json --markdown bench.md --plot bench.svg`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if b.plainProxy != "" {
				return bench.ServePlainProxy(cmd.Context(), b.plainProxy)
			}
			if err := errors.Join(b.load(cmd), b.check(cmd, names)); err != nil {
				return err
			}
			return b.run(cmd)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	flags := cmd.Flags()
	flags.StringVar(&b.program, "earmark", "", "the earmark to measure (default: the one beside this program, or else on PATH)")
	flags.StringVar(&b.base, "base", "", "an earlier build of earmark that takes turns with it in the scenarios paths, durations and neighbours")
	flags.StringToStringVar(&b.Peers, "peer", nil, "another ledger that runs already, for the scenario peers: blnk=URL, formance=URL; accounts of the benchmark's own stay there")
	flags.StringSliceVar(&b.Scenarios, "scenario", defaults, "which scenarios to run")
	flags.IntVar(&b.Rounds, "rounds", bench.DefaultRounds, "how many rounds each way runs")
	flags.DurationVar(&b.Duration, "duration", bench.DefaultDuration, "how long a way runs in a round")
	flags.IntVar(&b.Clients, "clients", bench.DefaultClients, "how many clients at once, where a scenario does not say otherwise")
	flags.BoolVar(&b.Quick, "quick", false, "run for seconds, to see that all of it works")
	flags.Int64Var(&b.Holds, "holds", bench.DefaultHolds, "open holds of the scenario holds")
	flags.StringSliceVar(&b.rows, "rows", rowTexts(bench.DefaultRows()), "settled rows of the scenario growth; 10 million need about 20 GB")
	flags.StringVar(&b.json, "json", "", "also write everything that was measured to this file, as JSON")
	flags.StringVar(&b.markdown, "markdown", "", "also write the tables to this file, as Markdown")
	flags.StringVar(&b.plot, "plot", "", "also write latency against offered load to this file, as SVG; for the scenario sweep alone")
	flags.StringVar(&b.Dir, "data-dir", "", "where the temporary data go (default: the system's temporary directory)")
	flags.StringVar(&b.DatabaseURL, "database-url", "", "use this Postgres, in databases of its own that are dropped in the end; CPU is then not measured (EARMARK_DATABASE_URL is not read)")
	flags.StringVar(&b.TemporalAddress, "temporal-address", "", "use this Temporal, in namespaces of its own that are deleted in the end")
	flags.StringVar(&b.plainProxy, bench.PlainProxyFlag, "", "")
	_ = flags.MarkHidden(bench.PlainProxyFlag) // it is defined
	return cmd
}

func rowTexts(rows []int64) []string {
	var texts []string
	for _, n := range rows {
		texts = append(texts, strconv.FormatInt(n, 10))
	}
	return texts
}

func (b *benchSettings) load(cmd *cobra.Command) error {
	if b.Quick {
		b.Hasten(cmd.Flags().Changed)
	}
	b.Rows = nil
	for _, text := range b.rows {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 || n > bench.MaxRows {
			return usageError{fmt.Errorf("--rows has %q; whole numbers from 1 to %d are allowed", text, bench.MaxRows)}
		}
		b.Rows = append(b.Rows, n)
	}
	return nil
}

func (b *benchSettings) check(_ *cobra.Command, names []string) error {
	for _, name := range b.Scenarios {
		if !slices.Contains(names, name) {
			return usageError{fmt.Errorf("--scenario has %q; use %s", name, strings.Join(names, ", "))}
		}
	}
	if err := bench.CheckPeers(b.Peers); err != nil {
		return usageError{err}
	}
	switch {
	case slices.Contains(b.Scenarios, "peers") && len(b.Peers) == 0:
		return usageError{fmt.Errorf("the scenario peers needs --peer; use %s", strings.Join(bench.PeerNames(), ", "))}
	case len(b.Scenarios) == 0:
		return usageError{fmt.Errorf("--scenario is empty; use %s", strings.Join(names, ", "))}
	case b.Rounds < 1 || b.Rounds > bench.MaxRounds:
		return usageError{fmt.Errorf("--rounds is %d; 1 to %d are allowed", b.Rounds, bench.MaxRounds)}
	case b.Duration < bench.MinDuration || b.Duration > bench.MaxDuration:
		return usageError{fmt.Errorf("--duration is %s; %s to %s are allowed", b.Duration, bench.MinDuration, bench.MaxDuration)}
	case b.Clients < 1 || b.Clients > bench.MaxClients:
		return usageError{fmt.Errorf("--clients is %d; 1 to %d are allowed", b.Clients, bench.MaxClients)}
	case b.Holds < 1 || b.Holds > bench.MaxRows:
		return usageError{fmt.Errorf("--holds is %d; 1 to %d are allowed", b.Holds, bench.MaxRows)}
	}
	return nil
}

func (b *benchSettings) run(cmd *cobra.Command) (err error) {
	if b.Program, err = findEarmark(b.program); err != nil {
		return err
	}
	if b.base != "" {
		if b.Base, err = findEarmark(b.base); err != nil {
			return err
		}
	}
	b.Version, b.Progress, b.Dial = version, cmd.ErrOrStderr(), b.dial
	if !slices.Contains(b.Scenarios, "sweep") { // make bench names a plot whatever the scenarios are
		b.plot = ""
	}
	// Files are opened first: a run is long, and a wrong name is not to lose it.
	files, err := openFiles(b.json, b.markdown, b.plot)
	if err != nil {
		return err
	}
	report, err := bench.Run(cmd.Context(), b.Options)
	if cmd.Context().Err() != nil {
		return errors.Join(files.close(), errors.New("stopped; what was started has ended"))
	}
	report.Text(cmd.OutOrStdout())
	return errors.Join(err, b.write(report, files), files.close())
}

func (b *benchSettings) write(report *bench.Report, files files) error {
	var errs []error
	if file := files[b.json]; file != nil {
		encoder := json.NewEncoder(file)
		encoder.SetIndent("", "  ")
		errs = append(errs, encoder.Encode(report))
	}
	if file := files[b.markdown]; file != nil {
		report.Markdown(file)
	}
	if file := files[b.plot]; file != nil {
		errs = append(errs, report.Plot(file))
	}
	return errors.Join(errs...)
}

// findEarmark returns the path of the earmark to measure.
func findEarmark(named string) (string, error) {
	if named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", usageError{fmt.Errorf("--earmark and --base name a program: %w", err)}
		}
		return filepath.Abs(path)
	}
	if self, err := os.Executable(); err == nil {
		if path, err := exec.LookPath(filepath.Join(filepath.Dir(self), "earmark")); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("earmark")
	if err != nil {
		return "", usageError{errors.New("no earmark is beside this program or on PATH; run `make build`, or name one with --earmark")}
	}
	return filepath.Abs(path)
}

// dial makes a client of a namespace. Temporal's settings in the environment are for a Temporal that
// runs already, and not for one that this command has started.
func (b *benchSettings) dial(address, namespace string) (client.Client, error) {
	var options client.Options
	if b.TemporalAddress != "" {
		var err error
		if options, err = envconfig.LoadDefaultClientOptions(); err != nil {
			return nil, fmt.Errorf("Temporal's settings: %w", err)
		}
	}
	options.HostPort, options.Namespace = address, namespace
	options.Logger = temporallog.NewStructuredLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	options.ConnectionOptions.GrpcCompression = &client.GrpcCompressionNone{} // as earmark does
	return client.NewLazyClient(options)
}

// files are open files by name.
type files map[string]io.WriteCloser

func openFiles(names ...string) (files, error) {
	opened := make(files)
	for _, name := range names {
		if name == "" {
			continue
		}
		file, err := os.Create(filepath.Clean(name))
		if err != nil {
			return nil, errors.Join(usageError{err}, opened.close())
		}
		opened[name] = file
	}
	return opened, nil
}

func (f files) close() error {
	var errs []error
	for _, file := range f {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}
